"""Fine-tunings and evaluations in their own process, through deaths, stops and lost words."""

from __future__ import annotations

import signal
import time
import uuid
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import pytest

from mlworker.contract import masks
from mlworker.contract.artifacts import (
    checkpoint_key,
    evaluation_key,
    pack_array,
    run_prefix,
    stop_key,
)
from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationProgress,
    EvaluationResults,
    FineTune,
    LearningSet,
    Recipe,
    TrainingEnded,
    TrainingProgress,
)
from mlworker.model.checkpoint import digest, untrained
from mlworker.runs import Runs
from mlworker.storage import Store
from tests.mlworker import commands
from tests.waiting import wait_until

QUICK = Recipe(epochs=1, most_steps=2, images=1, masks=1, corrections=1, augment=False)
LONG = QUICK.model_copy(update={"epochs": 500, "most_steps": None})


@pytest.fixture
def store(tmp_path):
    """A store of the test's own."""
    return Store(f"file://{tmp_path}/objects")


@pytest.fixture
def told():
    """What was told, in order."""
    return []


@pytest.fixture
def runs(store, broker, told, monkeypatch, tmp_path):
    """The runs of a worker."""
    monkeypatch.setenv("STORAGE_URL", f"file://{tmp_path}/objects")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    own = Runs(store, broker, tell=told.append)
    yield own
    for child in _children():
        child.kill()
    own.end()


@pytest.fixture
def parent(store):
    """A small model in the store."""
    data = untrained("vit_t", seed=1)
    store.put(checkpoint_key(digest(data)), data)
    return digest(data)


@pytest.fixture
def data(store):
    """Two subjects learnt from and one held out."""
    return commands.learning_set(store)


def fine_tuning(parent, data, *, recipe=QUICK, run_id=None, attempt=1, budget_s=None):
    """A command."""
    return FineTune(
        run_id=run_id or str(uuid.uuid4()),
        attempt=attempt,
        parent_digest=parent,
        data=data,
        recipe=recipe,
        budget_s=budget_s,
    )


def ends(told):
    """The last words among what was told."""
    return [each for each in told if isinstance(each, TrainingEnded | EvaluationEnded)]


def _children():
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "mlworker.training.job" in child.cmdline():
                found.append(child)
    return found


def until_it_learns(told):
    """A step has been told."""
    wait_until(lambda: [e for e in told if isinstance(e, TrainingProgress) and e.step])


def test_a_fine_tuning_gives_a_model(runs, told, store, parent, data):
    command = fine_tuning(parent, data)
    runs.take(command)
    runs.take(command)  # sent twice: one run
    wait_until(lambda: ends(told))
    (ended,) = ends(told)
    assert (ended.state, ended.steps, ended.code) == ("finished", 2, "")
    made = ended.checkpoint
    assert made.digest != parent
    assert (made.parent, made.training_data) == (parent, data.digest)
    assert digest(store.get(checkpoint_key(made.digest))) == made.digest
    assert not store.exists(run_prefix(command.run_id) + "last.state")
    assert store.exists(run_prefix(command.run_id) + "events.jsonl")
    assert isinstance(told[0], TrainingProgress)


def test_a_lost_last_word_is_said_again_without_learning_anew(runs, told, parent, data):
    command = fine_tuning(parent, data)
    runs.take(command)
    wait_until(lambda: ends(told))
    runs.take(command.model_copy(update={"attempt": 2}))
    wait_until(lambda: len(ends(told)) == 2)
    first, second = ends(told)
    assert second.checkpoint == first.checkpoint
    assert second.attempt == 2


def test_who_is_held_out_is_not_even_read(runs, told, store, parent, data):
    store.remove(_pixels_of(data, 2, store=store))
    runs.take(fine_tuning(parent, data))
    wait_until(lambda: ends(told))
    assert ends(told)[0].state == "finished"
    runs.take(_evaluation(parent, data=data))
    wait_until(lambda: len(ends(told)) == 2)
    assert ends(told)[1].code == "artifact_missing"


def test_a_killed_child_goes_on_where_it_kept_its_state(runs, told, store, parent, data):
    recipe = LONG.model_copy(update={"epochs": 6, "most_steps": 12})
    runs.take(fine_tuning(parent, data, recipe=recipe))
    wait_until(lambda: len(ends(told)) == 1)
    command = fine_tuning(parent, data, recipe=recipe)
    runs.take(command)
    wait_until(lambda: store.exists(run_prefix(command.run_id) + "last.state"))
    (child,) = _children()
    child.kill()
    wait_until(lambda: len(ends(told)) == 2)
    undisturbed, killed = ends(told)
    assert killed.state == "finished"
    assert killed.checkpoint.digest == undisturbed.checkpoint.digest


def test_a_worker_that_ends_leaves_the_run_to_the_next(runs, told, store, broker, parent, data):
    command = fine_tuning(parent, data, recipe=LONG)
    runs.take(command)
    until_it_learns(told)
    runs.end()
    assert not ends(told)
    assert store.exists(run_prefix(command.run_id) + "last.state")
    step = max(each.step for each in told if isinstance(each, TrainingProgress))

    later: list[Any] = []
    following = Runs(store, broker, tell=later.append)
    following.take(command.model_copy(update={"attempt": 2}))
    until_it_learns(later)
    assert next(each.step for each in later if each.step) >= step
    broker.set(stop_key(command.run_id), 1, ex=60)
    wait_until(lambda: ends(later))
    following.end()
    (ended,) = ends(later)
    assert (ended.state, ended.checkpoint) == ("stopped", None)


def test_a_child_that_dies_again_and_again_has_failed(runs, told, parent, data):
    runs.take(fine_tuning(parent, data, recipe=LONG))
    until_it_learns(told)
    killed: set[int] = set()
    while not ends(told):
        for child in _children():
            if child.pid not in killed:
                # Told to stop by somebody else, it ends with a word; we have not stopped it.
                child.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
                killed.add(child.pid)
        time.sleep(0.05)
    (ended,) = ends(told)
    assert (ended.state, ended.code) == ("failed", "trainer_died")
    assert len(killed) == 2


def test_its_time_is_up_with_what_it_has(runs, told, parent, data):
    runs.take(fine_tuning(parent, data, recipe=LONG, budget_s=0.1))
    wait_until(lambda: ends(told))
    (ended,) = ends(told)
    assert ended.state == "finished"
    assert ended.checkpoint is not None
    assert "time was up" in ended.message


def test_what_cannot_be_learnt_from_is_said_by_name(runs, told, store, parent, data):
    runs.take(fine_tuning(parent, data.model_copy(update={"digest": "0" * 64})))
    runs.take(fine_tuning("0" * 64, data))
    wait_until(lambda: len(ends(told)) == 2)
    store.put(_pixels_of(data, 0, store=store), pack_array(np.zeros((48, 64), np.int16)))
    runs.take(fine_tuning(parent, data))
    wait_until(lambda: len(ends(told)) == 3)
    assert [each.code for each in ends(told)] == [
        "artifact_invalid",
        "artifact_missing",
        "artifact_invalid",
    ]
    assert all(each.message for each in ends(told))


def _pixels_of(data, number, *, store):
    """The object key of a slice of the set."""
    return LearningSet.model_validate_json(store.get(data.key)).items[number].image.pixels_key


def _evaluation(*models, data, **more):
    return Evaluate(
        evaluation_id=str(uuid.uuid4()),
        attempt=1,
        model_digests=models,
        data=data,
        clicks=3,
        **more,
    )


def test_two_models_are_asked_the_same(runs, told, store, parent, data):
    other = untrained("vit_t", seed=2)
    store.put(checkpoint_key(digest(other)), other)
    command = _evaluation(parent, digest(other), data=data)
    runs.take(command)
    wait_until(lambda: ends(told))
    (ended,) = ends(told)
    assert isinstance(ended, EvaluationEnded)
    assert ended.code == ""
    results = EvaluationResults.model_validate_json(
        store.get(evaluation_key(command.evaluation_id))
    )
    assert [row.model_digest for row in results.rows] == [parent, digest(other)]
    for row in results.rows:
        assert row.revision_id == str(uuid.UUID(int=102))
        assert row.slice_id == str(uuid.UUID(int=3))
        assert (row.label, row.subject) == ("liver", "S-2")
        assert len(row.dice_after) == 3
        assert masks.decode(row.mask).shape == (48, 64)
    assert any(isinstance(each, EvaluationProgress) for each in told)


def test_who_waits_says_that_it_is_alive(runs, told, parent, data, broker, monkeypatch):
    monkeypatch.setattr("mlworker.runs.WAITING_TOLD_EVERY_S", 0.0)
    first = fine_tuning(parent, data, recipe=LONG)
    second = fine_tuning(parent, data)
    runs.take(first)
    runs.take(second)
    wait_until(lambda: [e for e in told if getattr(e, "run_id", "") == second.run_id])
    assert len(_children()) <= 1
    broker.set(stop_key(first.run_id), 1, ex=60)
    wait_until(lambda: len(ends(told)) == 2)
    assert [each.state for each in ends(told)] == ["stopped", "finished"]
