"""What to annotate next: begun by a lead, scored by the worker, ordered, and read by everybody."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from delineate import storage
from delineate.annotation.transitions import State
from delineate.jobs import MAX_ATTEMPTS, JobState
from delineate.learning import ranking
from delineate.learning.models import RankedSlice, Ranking, SliceScore, Strategy
from delineate.learning.tasks import receive_learning_event_task
from delineate.projects.models import Role
from delineate.registry.models import Deployment
from delineate.studies.models import Encoding, Slice
from mlworker.contract.artifacts import pack_array
from mlworker.contract.learning import MAX_SCORED, ScoreSlices, SlicesScored
from mlworker.contract.learning import SliceScore as Answer
from mlworker.contract.messages import EncodeSlices
from mlworker.contract.ranking import STRATEGIES, pack_features
from tests.delineate import factories


@pytest.fixture
def sent(monkeypatch):
    """The commands that the worker would get."""
    commands = []
    monkeypatch.setattr("delineate.worker.send", lambda command, **_: commands.append(command))
    monkeypatch.setattr("delineate.worker.seen_at", lambda queue: timezone.now())
    return commands


@pytest.fixture
def open_task(project):
    """Forty slices that nobody has annotated, all of them encoded."""
    return new_open_task(project, slices=40)


@pytest.fixture
def lead(project):
    return factories.lead_of(project)


def new_open_task(project, *, slices, state=State.OPEN, pseudonym="S-OPEN"):
    pixels = np.random.default_rng(3).integers(0, 99, (slices, 4, 4), dtype=np.int16)
    study = factories.new_study(project, pseudonym=pseudonym)
    task = factories.new_task(factories.new_series(study, pixels=pixels), state=state)
    encode(task.series.slices.all())
    return task


def encode(slices, *, state=JobState.DONE, attempt=1, model="ab" * 32):
    for slice_ in slices:
        key = f"embeddings/{model}/{slice_.id}.npy"
        Encoding.objects.create(
            slice=slice_, model_digest=model, embedding_key=key, priority=6, state=state,
            attempt=attempt,
        )  # fmt: skip
        storage.put(key, pack_array(np.full((256, 16, 16), slice_.index, np.float16)))


def scoring(sent):
    """Commands to score, taken off the line."""
    found = [command for command in sent if isinstance(command, ScoreSlices)]
    sent[:] = [command for command in sent if not isinstance(command, ScoreSlices)]
    return found


def answer(command, **of_all):
    """The worker's: a slice is the more uncertain, and the farther from others, by its index."""
    index = dict(Slice.objects.values_list("id", "index"))
    by_name = {str(id): value for id, value in index.items()}
    return SlicesScored(
        ranking_id=command.ranking_id,
        model_digest=command.model_digest,
        slices=tuple(
            Answer(
                **{
                    "slice_id": item.slice_id,
                    "predicted_iou": 0.9,
                    "disagreement": by_name[item.slice_id] / 100,
                    "instability": 0.1,
                    "features": pack_features(np.full(256, by_name[item.slice_id], np.float32)),
                    **of_all,
                }
            )
            for item in command.items
        ),
    )


def score_all(sent):
    while commands := scoring(sent):
        for command in commands:
            receive_learning_event_task(answer(command).model_dump_json())


def ranked(sent, project, lead, strategy=Strategy.UNCERTAINTY):
    begun = ranking.begin(project, strategy=strategy, by=lead)
    score_all(sent)
    begun.refresh_from_db()
    return begun


def test_slices_without_a_mask_are_ranked_by_what_the_model_thinks(sent, project, lead, open_task):
    browser = factories.browser_of(lead)
    address = f"/api/projects/{project.id}/rankings"
    posted = browser.post(address, {"strategy": "uncertainty"}, content_type="application/json")
    assert posted.status_code == 201
    begun = posted.json()
    assert (begun["state"], begun["scored"], begun["total"]) == ("running", 0, 40)
    assert begun["model"] == {"digest": "ab" * 32, "name": "SAM-Med2D tiny"}

    score_all(sent)

    (line,) = browser.get(address).json()
    assert (line["state"], line["scored"], line["total"]) == ("done", 40, 40)
    assert line["finished_at"]
    assert line["error_code"] == ""
    slices = browser.get(f"/api/rankings/{line['id']}/slices?limit=3").json()
    assert [each["position"] for each in slices] == [1, 2, 3]
    assert [each["index"] for each in slices] == [39, 38, 37]
    first = slices[0]
    of_it = open_task.series.slices.get(index=39)
    assert first["slice_id"] == str(of_it.id)
    assert first["series_id"] == str(open_task.series_id)
    assert first["task_id"] == str(open_task.id)
    assert first["subject"] == "S-OPEN"
    assert first["reason"] == "The model's three answers differ most here (overlap 0.61)"
    assert not first["done"]
    assert first["picture"].endswith("/rendered")
    assert len(browser.get(f"/api/rankings/{line['id']}/slices").json()) == 40


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_of_the_contract_can_be_asked_for(sent, project, lead, open_task, strategy):
    done = ranked(sent, project, lead, Strategy(strategy))
    assert done.state == JobState.DONE
    assert done.slices.count() == 40
    assert {str(one) for one in Strategy} == set(STRATEGIES)


def test_what_is_annotated_is_compared_with_by_its_embedding(sent, project, lead, open_task):
    mask = np.eye(4, dtype=bool)
    liver = factories.label_of(project, "liver")
    factories.accept_mask(open_task, mask, index=20, label=liver)
    done = ranked(sent, project, lead, Strategy.DIVERSITY)
    first, *_ = done.slices.all()
    assert first.slice.index == 0  # the farthest from the twentieth
    assert first.score == pytest.approx(20 * 16)
    assert first.reason == "Unlike anything annotated so far"
    # A mask that says "not here" is annotated, and shows no label.
    factories.accept_mask(open_task, np.zeros_like(mask), index=21, label=liver)
    known = ranking._annotated(done)
    assert [each.labels for each in known].count(frozenset({"liver"})) == 1
    assert len(known) == 2


def test_what_nobody_may_or_need_annotate_is_no_candidate(sent, project, lead, open_task):
    new_open_task(project, slices=2, state=State.SUBMITTED, pseudonym="S-SUBMITTED")
    held = new_open_task(project, slices=2, pseudonym="S-HELD")
    factories.hold(held.series)
    returned = new_open_task(project, slices=2, state=State.RETURNED, pseudonym="S-RETURNED")
    label = factories.label_of(project, "liver")
    factories.accept_mask(returned, np.eye(4, dtype=bool), index=1, label=label)
    found = set(ranking.candidates(project, seed=1))
    assert found == {*open_task.series.slices.all(), returned.series.slices.get(index=0)}


def test_of_very_many_slices_the_seed_says_which(project, open_task, monkeypatch):
    monkeypatch.setattr(ranking, "CANDIDATES_AT_MOST", 5)
    drawn = [tuple(ranking.candidates(project, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5


def test_few_slices_are_with_the_worker_at_once(sent, project, lead):
    new_open_task(project, slices=100)
    begun = ranking.begin(project, strategy=Strategy.MIX, by=lead)
    commands = scoring(sent)
    assert [len(command.items) for command in commands] == [MAX_SCORED] * 4
    ranking.sweep()
    assert scoring(sent) == []
    ranking.receive(answer(commands[0]))
    (more,) = scoring(sent)
    assert len(more.items) == MAX_SCORED
    begun.refresh_from_db()
    assert (begun.scored, len(begun.asked)) == (MAX_SCORED, 4 * MAX_SCORED)


def test_an_answer_that_comes_twice_changes_nothing(sent, project, lead, open_task):
    begun = ranking.begin(project, strategy=Strategy.UNCERTAINTY, by=lead)
    commands = scoring(sent)
    for command in (*commands, *commands):
        ranking.receive(answer(command))
    begun.refresh_from_db()
    assert begun.state == JobState.DONE
    assert SliceScore.objects.count() == begun.slices.count() == 40


def test_scores_are_kept_for_the_next_ranking(sent, project, lead, open_task):
    ranked(sent, project, lead)
    new_open_task(project, slices=3, pseudonym="S-NEW")
    again = ranking.begin(project, strategy=Strategy.DIVERSITY, by=lead)
    assert (again.scored, again.total) == (40, 43)
    (command,) = scoring(sent)
    assert len(command.items) == 3
    ranking.receive(answer(command))
    third = ranking.begin(project, strategy=Strategy.RANDOM, by=lead)
    assert third.state == JobState.DONE
    assert scoring(sent) == []


def test_only_the_best_are_kept(sent, project, lead, open_task, monkeypatch):
    monkeypatch.setattr(ranking, "KEPT", 7)
    assert ranked(sent, project, lead).slices.count() == 7


def test_old_rankings_are_let_go(sent, project, lead, open_task, monkeypatch):
    monkeypatch.setattr(ranking, "RANKINGS_KEPT", 2)
    made = [ranked(sent, project, lead, Strategy.RANDOM).id for _ in range(3)]
    assert list(project.rankings.values_list("id", flat=True)) == [made[2], made[1]]


def test_a_silent_worker_is_asked_again_and_given_up_in_the_end(sent, project, lead, open_task):
    begun = ranking.begin(project, strategy=Strategy.MIX, by=lead)
    first = scoring(sent)

    def silence():
        long_ago = timezone.now() - ranking.SILENT_AFTER - timedelta(seconds=1)
        Ranking.objects.update(heartbeat_at=long_ago)
        ranking.sweep()
        begun.refresh_from_db()
        return scoring(sent)

    for number in range(1, MAX_ATTEMPTS + 1):
        again = silence()
        assert sorted(i.slice_id for c in again for i in c.items) == sorted(
            i.slice_id for c in first for i in c.items
        )
        assert begun.attempt == number
    assert silence() == []
    assert (begun.state, begun.error_code) == (JobState.FAILED, "gave_up")
    ranking.receive(answer(first[0]))  # too late
    assert SliceScore.objects.count() == 0


def test_an_answer_forgives_what_was_silent_before(sent, project, lead, open_task):
    begun = ranking.begin(project, strategy=Strategy.MIX, by=lead)
    Ranking.objects.update(attempt=4)
    ranking.receive(answer(scoring(sent)[0]))
    begun.refresh_from_db()
    assert begun.attempt == 0


def test_while_the_worker_is_away_nothing_counts(sent, project, lead, open_task, monkeypatch):
    begun = ranking.begin(project, strategy=Strategy.MIX, by=lead)
    scoring(sent)
    monkeypatch.setattr("delineate.worker.seen_at", lambda queue: None)
    Ranking.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))
    ranking.sweep()
    begun.refresh_from_db()
    assert begun.attempt == 0
    assert scoring(sent) == []


def test_slices_that_are_not_encoded_yet_are_waited_for(sent, project, lead):
    task = new_open_task(project, slices=3)
    Encoding.objects.filter(slice__series=task.series).delete()
    begun = ranking.begin(project, strategy=Strategy.UNCERTAINTY, by=lead)
    assert scoring(sent) == []
    (encoding,) = sent
    assert isinstance(encoding, EncodeSlices)
    assert len(encoding.items) == 3
    Ranking.objects.update(heartbeat_at=timezone.now() - timedelta(days=1))
    ranking.sweep()  # waiting for embeddings is no silence
    Encoding.objects.filter(slice__series=task.series).update(state=JobState.DONE)
    ranking.sweep()
    score_all(sent)
    begun.refresh_from_db()
    assert (begun.state, begun.attempt, begun.slices.count()) == (JobState.DONE, 0, 3)


def test_an_embedding_that_is_gone_is_made_again_once(sent, project, lead):
    task = new_open_task(project, slices=1)
    begun = ranking.begin(project, strategy=Strategy.UNCERTAINTY, by=lead)
    gone = {"code": "not_prepared", "message": "The slice has no embedding of this model."}
    (command,) = scoring(sent)
    ranking.receive(answer(command, **gone))
    encoding = Encoding.objects.get(slice__series=task.series)
    assert encoding.state in (JobState.PENDING, JobState.RUNNING)
    encoding.state = JobState.DONE
    encoding.save()
    ranking.sweep()
    (command,) = scoring(sent)
    ranking.receive(answer(command, **gone))
    begun.refresh_from_db()
    assert (begun.state, begun.error_code) == (JobState.FAILED, "nothing_scored")


def test_slices_that_cannot_be_scored_are_left_out(sent, project, lead, open_task):
    failed = new_open_task(project, slices=2, pseudonym="S-FAILED")
    Encoding.objects.filter(slice__series=failed.series).update(
        state=JobState.FAILED, attempt=MAX_ATTEMPTS
    )
    begun = ranking.begin(project, strategy=Strategy.UNCERTAINTY, by=lead)
    first, *others = scoring(sent)
    ranking.receive(answer(first, code="worker_failed", message="The worker failed."))
    for command in others:
        ranking.receive(answer(command))
    begun.refresh_from_db()
    assert (begun.state, begun.scored, begun.total) == (JobState.DONE, 42, 42)
    assert begun.slices.count() == 40 - MAX_SCORED


def test_features_that_are_none_are_no_score(sent, project, lead):
    new_open_task(project, slices=1)
    begun = ranking.begin(project, strategy=Strategy.UNCERTAINTY, by=lead)
    (command,) = scoring(sent)
    ranking.receive(answer(command, features="AAAA"))
    begun.refresh_from_db()
    assert begun.error_code == "nothing_scored"


def test_what_is_annotated_or_deleted_in_the_meantime_drops_out(sent, project, lead, open_task):
    begun = ranking.begin(project, strategy=Strategy.UNCERTAINTY, by=lead)
    *first, last = scoring(sent)
    label = factories.label_of(project, "liver")
    factories.accept_mask(open_task, np.eye(4, dtype=bool), index=39, label=label)
    answered = [answer(command) for command in (*first, last)]
    open_task.series.slices.get(index=38).delete()
    for event in answered:
        ranking.receive(event)
    begun.refresh_from_db()
    assert (begun.state, begun.total) == (JobState.DONE, 38)
    (first_of_all, *_) = begun.slices.all()
    assert first_of_all.slice.index == 37


def test_what_was_ranked_and_is_annotated_then_is_done(sent, project, lead, open_task):
    done = ranked(sent, project, lead)
    label = factories.label_of(project, "liver")
    factories.accept_mask(open_task, np.eye(4, dtype=bool), index=39, label=label)
    annotator = factories.browser_of(factories.new_member(project, Role.ANNOTATOR))
    first, second = annotator.get(f"/api/rankings/{done.id}/slices?limit=2").json()
    assert (first["done"], second["done"]) == (True, False)
    factories.hold(open_task.series)
    assert annotator.get(f"/api/rankings/{done.id}/slices").json() == []


def test_a_ranking_ends_with_the_model_that_it_asks(sent, project, lead, open_task):
    begun = ranking.begin(project, strategy=Strategy.MIX, by=lead)
    other = factories.new_model("ef" * 32, is_default=False)
    Deployment.objects.create(project=project, model=other, by=lead)
    ranking.sweep()
    begun.refresh_from_db()
    assert (begun.state, begun.error_code) == (JobState.FAILED, "model_changed")


def test_what_stands_in_the_way_is_said(sent, project, lead, model):
    browser = factories.browser_of(lead)
    address = f"/api/projects/{project.id}/rankings"

    def refusal(wanted):
        answered = browser.post(address, wanted, content_type="application/json")
        return answered.status_code, answered.json()["error"]["code"]

    assert refusal({"strategy": "mix"}) == (409, "nothing_to_rank")
    assert refusal({"strategy": "alphabet"})[0] == 422
    assert refusal({"strategy": "mix", "seed": 1})[0] == 422
    new_open_task(project, slices=1)
    ranking.begin(project, strategy=Strategy.MIX, by=lead)
    assert refusal({"strategy": "mix"}) == (409, "ranking_under_way")
    Ranking.objects.all().delete()
    model.delete()
    assert refusal({"strategy": "mix"}) == (409, "no_model")
    assert RankedSlice.objects.count() == 0


def test_pages_are_told(
    sent, project, lead, open_task, monkeypatch, django_capture_on_commit_callbacks
):
    told = []
    monkeypatch.setattr("delineate.live._send", lambda group, notice: told.append(notice))
    with django_capture_on_commit_callbacks(execute=True):
        ranked(sent, project, lead)
    notices = [notice for notice in told if notice["what"] == "ranking"]
    assert notices[0]["data"] == {"state": "running", "scored": 0, "total": 40}
    assert notices[-1]["data"] == {"state": "done", "scored": 40, "total": 40}
