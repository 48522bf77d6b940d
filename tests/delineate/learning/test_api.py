"""The loop's addresses: what pages are told."""

from __future__ import annotations

import io
import uuid
import zipfile

import pytest

from delineate import storage
from delineate.audit.models import Event
from delineate.jobs import JobState
from delineate.learning import comparing, training
from delineate.learning.models import Comparison, LearningSettings, TrainingRun
from mlworker.contract.artifacts import checkpoint_key, run_prefix
from mlworker.contract.learning import EvaluationEnded, EvaluationProgress
from tests.delineate import factories
from tests.delineate.learning.conftest import CANDIDATE, ended, results

WANTED = {
    "schedule": "masks",
    "every_masks": 10,
    "window_from": 0,
    "window_until": 0,
    "budget_minutes": 30,
    "trainable": "decoder",
    "parent": "active",
    "epochs": 3,
    "learning_rate": 0.0001,
    "automatic": True,
    "confidence": 0.9,
    "tolerance": 0.01,
    "held_out_share": 0.5,
}


@pytest.fixture
def lead(project, monkeypatch):
    """A lead's browser; nothing reaches a worker."""
    monkeypatch.setattr("delineate.worker.send", lambda command, **_: None)
    return factories.browser_of(factories.lead_of(project))


def judged(project, *, gain=0.1):
    """A run that the gate has spoken of."""
    run = training.begin(project, by=factories.lead_of(project))
    training.sweep()
    run.refresh_from_db()
    training.receive_trained(ended(run))
    run.refresh_from_db()
    storage.put(run.results_key, results(run, gain=gain).model_dump_json().encode())
    training.receive_evaluated(EvaluationEnded(evaluation_id=str(run.id), attempt=1))
    run.refresh_from_db()
    return run


def test_settings_are_changed_by_name_and_audited(lead, project):
    address = f"/api/projects/{project.id}/learning"
    assert lead.get(address).json()["settings"]["schedule"] == "off"
    assert lead.put(f"{address}/settings", WANTED, content_type="application/json").json() == WANTED
    told = lead.get(address).json()
    assert told["settings"] == WANTED
    assert told["unassigned_subjects"] == 8
    assert told["new_masks"] == 24
    assert told["refusal"] is None
    assert told["due"] == "Due now."
    (event,) = Event.objects.filter(action="learning_changed")
    assert "schedule: off" in event.data["before"]
    assert "schedule: masks" in event.data["after"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_from": 24},
        {"confidence": 1},
        {"held_out_share": 0},
        {"schedule": "x"},
        {"more": 1},
        {"learning_rate": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(lead, project, wrong):
    response = lead.put(
        f"/api/projects/{project.id}/learning/settings",
        WANTED | wrong,
        content_type="application/json",
    )
    assert response.status_code == 422
    assert not LearningSettings.objects.exists()


def test_a_run_is_begun_watched_and_read(lead, project):
    begun = lead.post(f"/api/projects/{project.id}/runs")
    assert begun.status_code == 201
    assert begun.json()["state"] == "pending"
    assert lead.post(f"/api/projects/{project.id}/runs").json()["error"]["code"] == "run_under_way"
    TrainingRun.objects.all().delete()
    run = judged(project)
    (line,) = lead.get(f"/api/projects/{project.id}/runs").json()
    assert line["verdict"] == "insufficient"
    assert line["candidate"]["digest"] == CANDIDATE
    details = lead.get(f"/api/runs/{run.id}").json()
    assert details["train"] == {"subjects": 6, "masks": 18}
    assert details["held_out"] == {"subjects": 2, "masks": 6}
    assert details["judgement"]["labels"][0]["label"] == "all"
    assert details["log"][0][1] == "Waits for its turn."
    log = f"/api/runs/{run.id}/log"
    assert lead.get(log).json()["error"]["code"] == "no_log"
    for name in ("events.jsonl", "tensorboard/events.out", "last.state"):
        storage.put(f"{run_prefix(str(run.id))}{name}", b"told")
    with zipfile.ZipFile(io.BytesIO(lead.get(log).content)) as archive:
        assert archive.namelist() == ["run-1/events.jsonl", "run-1/tensorboard/events.out"]
        assert archive.read("run-1/events.jsonl") == b"told"
    assert len(details["snapshot_digest"]) == 64


def test_an_empty_project_says_what_is_missing(model):
    project = factories.new_project("liver")
    browser = factories.browser_of(factories.lead_of(project))
    told = browser.get(f"/api/projects/{project.id}/learning").json()
    assert "nothing to learn from" in told["refusal"]
    refused = browser.post(f"/api/projects/{project.id}/runs")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "nothing_to_learn"
    assert browser.get(f"/api/projects/{project.id}/helping").json()[0]["masks"] == 0
    assert browser.get(f"/api/projects/{project.id}/drift").json() == []


def test_a_model_is_promoted_read_and_fetched(lead, project):
    judged(project)
    wanted = {"change": "promote", "digest": CANDIDATE}
    made = lead.post(
        f"/api/projects/{project.id}/promotions", wanted, content_type="application/json"
    )
    assert made.status_code == 201
    assert made.json()["state"] == "done"  # no task is open
    newest = lead.get(f"/api/projects/{project.id}/models").json()[0]
    assert newest["is_active"]
    assert newest["metrics"]["dice"] == pytest.approx(0.8, abs=0.02)
    card = lead.get(f"/api/projects/{project.id}/models/{CANDIDATE}/card").content.decode()
    assert "18 masks of 6 subjects (liver)" in card
    assert "| all | 6 | 2 |" in card
    storage.put(checkpoint_key(CANDIDATE), b"weights")
    file = lead.get(f"/api/projects/{project.id}/models/{CANDIDATE}/file")
    assert b"".join(file.streaming_content) == b"weights"
    assert Event.objects.filter(action="model_downloaded").count() == 1
    back = lead.post(
        f"/api/projects/{project.id}/promotions",
        {"change": "roll_back"},
        content_type="application/json",
    )
    assert back.json()["model"]["digest"] != CANDIDATE
    assert len(lead.get(f"/api/projects/{project.id}/promotions").json()) == 2


def test_another_projects_model_is_no_choice_here(lead, project):
    judged(project)
    other = factories.new_project("spleen")
    browser = factories.browser_of(factories.lead_of(other))
    digests = {each["digest"] for each in browser.get(f"/api/projects/{other.id}/models").json()}
    assert CANDIDATE not in digests
    refused = browser.post(
        f"/api/projects/{other.id}/promotions",
        {"change": "pin", "digest": CANDIDATE},
        content_type="application/json",
    )
    assert refused.status_code == 404


def test_two_models_are_compared_slice_by_slice(lead, project):
    run = judged(project)
    asked = {"first": run.parent_id, "second": CANDIDATE}
    address = f"/api/projects/{project.id}/comparisons"
    begun = lead.post(address, asked, content_type="application/json").json()
    comparing.receive_progress(
        EvaluationProgress(evaluation_id=begun["id"], attempt=1, done=2, of=12)
    )
    told = lead.get(f"/api/comparisons/{begun['id']}").json()
    assert (told["state"], told["done"], told["of"]) == ("running", 2, 12)
    masks = f"/api/comparisons/{begun['id']}/masks"
    assert lead.get(masks).json()["error"]["code"] == "not_ready"

    comparison = Comparison.objects.get()
    rows = results(run, gain=0.1)
    storage.put(comparison.results_key, rows.model_dump_json().encode())
    comparing.receive_evaluated(EvaluationEnded(evaluation_id=begun["id"], attempt=1))

    told = lead.get(f"/api/comparisons/{begun['id']}").json()
    assert told["state"] == "done"
    assert told["judgement"]["labels"][0]["difference"] == pytest.approx(0.1)
    assert told["judgement"]["confidence"] == 0.95
    assert lead.get(address).json() == [told]
    shown = lead.get(f"{masks}?limit=4").json()
    assert len(shown) == 4
    assert shown[0]["second_dice"] - shown[0]["first_dice"] == pytest.approx(0.1)
    assert {each["index"] for each in shown} <= {0, 1, 2}
    assert lead.get(shown[0]["picture"]).status_code == 200
    for more, code in (
        ({"second": asked["first"]}, "same_model"),
        ({"second": "ee" * 32}, "unknown_model"),
        ({"run_id": str(uuid.uuid4())}, "nothing_held_out"),
    ):
        refused = lead.post(address, asked | more, content_type="application/json")
        assert refused.json()["error"]["code"] == code
    again = lead.post(address, asked | {"run_id": str(run.id)}, content_type="application/json")
    assert again.status_code == 201
    assert Comparison.objects.get(id=again.json()["id"]).snapshot == run.snapshot


def test_a_comparison_that_fails_says_why(lead, project):
    run = judged(project)
    asked = {"first": run.parent_id, "second": CANDIDATE}
    address = f"/api/projects/{project.id}/comparisons"
    begun = lead.post(address, asked, content_type="application/json").json()
    comparing.receive_evaluated(
        EvaluationEnded(
            evaluation_id=begun["id"], attempt=1, code="artifact_missing", message="Gone."
        )
    )
    told = lead.get(f"/api/comparisons/{begun['id']}").json()
    assert (told["state"], told["error_message"]) == (JobState.FAILED, "Gone.")
