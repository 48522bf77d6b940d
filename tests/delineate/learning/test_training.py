"""Runs from being due to their verdict, whatever dies in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from delineate import storage
from delineate.audit.chain import verify
from delineate.audit.models import Event
from delineate.errors import Conflict
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER, JobState
from delineate.learning import services, training
from delineate.learning.models import LearningSettings, Part, Promotion, Stage, TrainingRun
from delineate.registry.selectors import active_digest
from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationProgress,
    FineTune,
    TrainingProgress,
)
from tests.delineate import factories
from tests.delineate.learning.conftest import CANDIDATE, add_subject, ended, results

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def sent(monkeypatch, django_capture_on_commit_callbacks):
    """The commands that went to the worker, which is alive."""
    commands: list[FineTune | Evaluate] = []
    monkeypatch.setattr("delineate.worker.send", lambda command, **_: commands.append(command))
    monkeypatch.setattr("delineate.worker.seen_at", lambda queue: timezone.now())
    stopped: list[str] = []
    monkeypatch.setattr("delineate.worker.ask_to_stop", stopped.append)
    return commands


def settings(project, **wanted):
    """The project's settings, at any hour."""
    return LearningSettings.objects.create(
        project=project, **{"window_from": 0, "window_until": 0, **wanted}
    )


def begun(project):
    """A run whose turn has come."""
    run = training.begin(project, by=factories.lead_of(project))
    training.sweep()
    run.refresh_from_db()
    return run


def fall_silent(run):
    """Nobody has heard of it for a while."""
    TrainingRun.objects.filter(id=run.id).update(heartbeat_at=timezone.now() - 2 * SILENT_AFTER)


def test_a_run_from_its_beginning_to_a_verdict(project, sent):
    run = begun(project)
    (command,) = sent
    assert isinstance(command, FineTune)
    assert command.parent_digest == active_digest(project)
    assert run.state == JobState.RUNNING
    assert run.snapshot.items.filter(part=Part.TRAIN).count() == 18

    training.receive_progress(
        TrainingProgress(
            run_id=str(run.id),
            attempt=1,
            epoch=1,
            step=10,
            of_steps=40,
            loss=0.5,
            dice=0.8,
            eta_s=9.0,
        )
    )
    run.refresh_from_db()
    assert (run.step, run.of_steps, run.eta_s) == (10, 40, 9.0)
    assert run.curve == [[10, 0.5, 0.8]]

    training.receive_trained(ended(run))
    run.refresh_from_db()
    assert run.stage == Stage.EVALUATING
    assert run.candidate_id == CANDIDATE
    assert run.candidate.parent == run.parent_id
    evaluation = sent[-1]
    assert isinstance(evaluation, Evaluate)
    assert evaluation.model_digests == (run.opponent_id, CANDIDATE)
    assert evaluation.data == command.data

    training.receive_progress(
        EvaluationProgress(evaluation_id=str(run.id), attempt=1, done=3, of=12)
    )
    storage.put(run.results_key, results(run, gain=0.1).model_dump_json().encode())
    training.receive_evaluated(EvaluationEnded(evaluation_id=str(run.id), attempt=1))
    run.refresh_from_db()
    assert run.state == JobState.DONE
    assert run.evaluated == 3
    assert run.verdict == "insufficient"  # two held-out subjects are too few
    assert "2 held-out subjects" in run.judgement["sentence"]
    assert active_digest(project) != CANDIDATE
    verify(project.id)
    actions = set(Event.objects.filter(project_id=project.id).values_list("action", flat=True))
    assert {"run_started", "run_judged", "parts_given"} <= actions


@pytest.mark.parametrize("automatic", [True, False])
def test_a_better_model_is_promoted_by_itself_only_where_the_project_says_so(
    project, sent, automatic
):
    settings(project, automatic=automatic, held_out_share=0.7)
    run = _judged(project, gain=0.1)
    assert run.verdict == "better"
    assert (active_digest(project) == CANDIDATE) is automatic
    if automatic:
        (event,) = Event.objects.filter(project_id=project.id, action="model_answers")
        assert event.actor == "system"
        assert event.data["change"] == "promote"


@pytest.mark.parametrize("gain", [-0.2, 0.0])
def test_a_worse_model_is_never_promoted_by_itself(project, sent, gain):
    settings(project, automatic=True, held_out_share=0.7)
    run = _judged(project, gain=gain)
    assert run.verdict == "not_better"
    assert active_digest(project) != CANDIDATE
    assert not Promotion.objects.exists()


def test_a_leaked_split_is_never_promoted_by_itself(project, sent):
    settings(project, automatic=True, held_out_share=0.7)
    run = _trained(project)
    run.snapshot.items.filter(part=Part.HELD_OUT).first()
    judging = run.snapshot.items.filter(part=Part.HELD_OUT)[0]
    item = run.snapshot.items.filter(part=Part.TRAIN)[0]
    item.pseudonym = judging.pseudonym
    item.save()
    run = _receive_results(run, gain=0.2)
    assert run.verdict == "leaked"
    assert active_digest(project) != CANDIDATE


def test_one_run_at_a_time_in_a_project(project, sent):
    run = begun(project)
    with pytest.raises(Conflict) as refusal:
        training.begin(project, by=None)
    assert refusal.value.code == "run_under_way"
    training.receive_trained(ended(run, state="failed", code="not_finite", message="It diverged."))
    run.refresh_from_db()
    assert (run.state, run.error_code) == (JobState.FAILED, "not_finite")
    assert training.begin(project, by=None).number == 2


def test_projects_take_turns_and_who_waits_longest_goes_first(project, sent):
    other = factories.new_project("liver")
    add_subject(other, "S-000000000101")
    run = begun(project)
    theirs = training.begin(other, by=None)
    training.sweep()
    assert len(sent) == 1  # one at a time on this machine
    training.receive_trained(ended(run, state="failed", code="x", message="x"))
    again = training.begin(project, by=None)
    training.sweep()
    assert [command.run_id for command in sent] == [str(run.id), str(theirs.id)]
    again.refresh_from_db()
    assert again.state == JobState.PENDING


def test_what_falls_silent_is_sent_again_with_the_same_set(project, sent):
    run = begun(project)
    training.sweep()
    assert len(sent) == 1
    fall_silent(run)
    add_subject(project, "S-000000000099")
    training.sweep()
    first, second = sent
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.data == second.data
    run.refresh_from_db()
    assert run.state == JobState.RUNNING


def test_nothing_is_sent_again_while_the_worker_is_away(project, sent, monkeypatch):
    run = begun(project)
    fall_silent(run)
    monkeypatch.setattr("delineate.worker.seen_at", lambda queue: None)
    for _ in range(3):
        training.sweep()
    assert len(sent) == 1


def test_a_run_that_comes_no_further_is_given_up_and_not_begun_again(project, sent):
    settings(project, schedule="masks", every_masks=1)
    run = begun(project)
    for attempt in range(1, 2 * MAX_ATTEMPTS):
        fall_silent(run)
        if attempt == 3:  # it came further once
            progress = {"epoch": 1, "step": 5, "of_steps": 9}
            training.receive_progress(TrainingProgress(run_id=str(run.id), attempt=3, **progress))
            fall_silent(run)
        training.sweep()
    run.refresh_from_db()
    assert (run.state, run.error_code) == (JobState.FAILED, "gave_up")
    assert run.attempt == 3 + MAX_ATTEMPTS
    add_subject(project, "S-000000000099")
    is_due, sentence = training.due(project)
    assert not is_due
    assert "failed" in sentence
    training.begin_what_is_due()
    assert project.runs.count() == 1


def test_a_lead_stops_a_run_that_waits_and_one_that_runs(project, sent):
    lead = factories.lead_of(project)
    waiting = training.begin(project, by=lead)
    stopped = services.cancel_run(waiting, by=lead)
    assert (stopped.state, stopped.error_code) == (JobState.FAILED, "cancelled")

    run = begun(project)
    services.cancel_run(run, by=lead)
    run.refresh_from_db()
    assert run.state == JobState.RUNNING  # until the worker has kept what it has
    training.receive_trained(ended(run, state="stopped", steps=7, checkpoint=None))
    run.refresh_from_db()
    assert (run.state, run.error_code) == (JobState.FAILED, "cancelled")
    assert "step 7" in run.error_message
    with pytest.raises(Conflict) as refusal:
        services.cancel_run(run, by=lead)
    assert refusal.value.code == "run_ended"


def test_a_stopped_run_whose_worker_died_ends_at_the_next_sweep(project, sent):
    run = begun(project)
    services.cancel_run(run, by=factories.lead_of(project))
    fall_silent(run)
    training.sweep()
    run.refresh_from_db()
    assert (run.state, run.error_code) == (JobState.FAILED, "cancelled")
    assert len(sent) == 1


def test_what_comes_late_or_twice_changes_nothing(project, sent):
    run = begun(project)
    message = ended(run)
    training.receive_trained(message)
    training.receive_trained(message)
    training.receive_progress(TrainingProgress(run_id=str(run.id), attempt=1, step=3, of_steps=4))
    run.refresh_from_db()
    assert run.step == 40
    assert sum(isinstance(command, Evaluate) for command in sent) == 1


@pytest.mark.parametrize(
    ("wanted", "now", "is_due", "words"),
    [
        ({"schedule": "off"}, NOON, False, "by hand"),
        ({"schedule": "masks", "every_masks": 25}, NOON, False, "1 more accepted mask."),
        ({"schedule": "masks", "every_masks": 24}, NOON, True, "Due"),
        ({"schedule": "nightly"}, NOON, True, "Due"),
        (
            {"schedule": "nightly", "window_from": 22, "window_until": 6},
            NOON,
            False,
            "between 22:00 and 06:00",
        ),
        (
            {"schedule": "nightly", "window_from": 22, "window_until": 6},
            NOON.replace(hour=23),
            True,
            "Due",
        ),
        (
            {"schedule": "nightly", "window_from": 22, "window_until": 6},
            NOON.replace(hour=5),
            True,
            "Due",
        ),
        ({"schedule": "nightly", "window_from": 9, "window_until": 11}, NOON, False, "between"),
    ],
)
def test_a_schedule_says_when(project, wanted, now, is_due, words):
    settings(project, **wanted)
    due, sentence = training.due(project, now=now)
    assert due is is_due
    assert words in sentence


def test_every_so_many_masks_counts_from_the_last_run(project, sent):
    settings(project, schedule="masks", every_masks=3)
    training.begin_what_is_due()
    (run,) = project.runs.all()
    assert run.by is None
    training.sweep()
    training.receive_trained(ended(TrainingRun.objects.get(id=run.id)))
    TrainingRun.objects.filter(id=run.id).update(state=JobState.DONE)
    assert training.due(project) == (False, "Waits for 3 more accepted masks.")
    add_subject(project, "S-000000000099")
    assert training.due(project)[0]


def test_a_night_has_one_run_and_ends_with_its_window(project, sent):
    night = timezone.now()
    settings(
        project,
        schedule="nightly",
        window_from=(night - timedelta(hours=1)).hour,
        window_until=(night + timedelta(hours=2)).hour,
        budget_minutes=600,
    )
    training.begin_what_is_due()
    (run,) = project.runs.all()
    assert 0 < run.budget_s <= 2 * 3600
    TrainingRun.objects.filter(id=run.id).update(state=JobState.DONE)
    add_subject(project, "S-000000000099")
    assert not training.due(project)[0]


def test_a_set_that_is_gone_ends_the_run_by_name(project, sent):
    run = begun(project)
    storage.delete(run.snapshot.key)
    project.studies.first().delete()
    fall_silent(run)
    training.sweep()
    run.refresh_from_db()
    assert (run.state, run.error_code) == (JobState.FAILED, "set_changed")


def test_a_long_curve_is_thinned_and_keeps_its_end(project, sent):
    run = begun(project)
    for step in range(1, 900):
        run.curve = training._thinned([*run.curve, [step, 1 / step, 0.5]])
    assert len(run.curve) <= training.CURVE_POINTS
    assert run.curve[-1][0] == 899
    assert [point[0] for point in run.curve] == sorted(point[0] for point in run.curve)


def _trained(project):
    run = begun(project)
    training.receive_trained(ended(run))
    run.refresh_from_db()
    return run


def _judged(project, *, gain):
    return _receive_results(_trained(project), gain=gain)


def _receive_results(run, *, gain):
    storage.put(run.results_key, results(run, gain=gain).model_dump_json().encode())
    training.receive_evaluated(EvaluationEnded(evaluation_id=str(run.id), attempt=1))
    run.refresh_from_db()
    return run
