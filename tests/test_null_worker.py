"""The worker without a model keeps the contract that it stands for."""

from __future__ import annotations

import base64
import json
import uuid

import numpy as np
import pytest
from celery import Celery

from mlworker.contract import masks
from mlworker.contract.artifacts import (
    array_digest,
    checkpoint_key,
    evaluation_key,
    logits_key,
    stop_key,
    upload_key,
)
from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationResults,
    FineTune,
    Recipe,
    SlicesScored,
    TrainingEnded,
    learning_event_adapter,
)
from mlworker.contract.messages import (
    EVENT_QUEUE,
    Box,
    CheckpointAdded,
    EditedMask,
    Failed,
    FromPackage,
    FromSeed,
    FromUpload,
    NotPrepared,
    Point,
    PreviousLogits,
    Segmented,
    event_adapter,
    reply_adapter,
)
from mlworker.contract.ranking import FEATURES, unpack_features
from mlworker.storage import Store
from tests import null_learning, null_worker
from tests.mlworker import commands

MODEL = "c" * 64
POINT = Point(x=40, y=30, positive=True)


@pytest.fixture(scope="module")
def store(services):
    return Store(services.storage_url)


@pytest.fixture(scope="module")
def send(services):
    """Send a command as the server does."""
    app = Celery("test", broker=services.redis_url, set_as_current=False)
    with null_worker.running(services.redis_url, services.storage_url):
        yield lambda command: app.send_task(
            command.task, args=[command.model_dump_json()], queue=command.queue
        )


@pytest.fixture
def ask(send, module_broker):
    def _ask(command):
        send(command)
        answer = module_broker.blpop([command.reply_to], timeout=30)
        assert answer is not None
        return reply_adapter.validate_json(answer[1])

    return _ask


def test_a_slice_is_encoded_then_clicked_then_refined(send, ask, module_broker, store):
    image = commands.stored_image(store, commands.ct_slice(shift=200))
    command = commands.segment(image, model_digest=MODEL, points=(POINT,))
    assert ask(command) == NotPrepared(request_id=command.request_id)

    encoding = commands.encode(image, model_digest=MODEL)
    send(encoding)
    event = _event(module_broker)
    assert [(each.encoding_id, each.code) for each in event.slices] == [
        (encoding.items[0].encoding_id, None)
    ]

    first = ask(commands.segment(image, model_digest=MODEL, points=(POINT,)))
    assert isinstance(first, Segmented)
    assert masks.decode(first.mask)[30, 40]
    assert module_broker.exists(logits_key(first.proposal_id))

    refine = PreviousLogits(proposal_id=first.proposal_id)
    more = (POINT, Point(x=41, y=31, positive=False))
    refined = ask(commands.segment(image, model_digest=MODEL, points=more, refine=refine))
    assert not masks.decode(refined.mask)[31, 41]

    module_broker.delete(logits_key(first.proposal_id))
    forgotten = ask(commands.segment(image, model_digest=MODEL, points=more, refine=refine))
    assert isinstance(forgotten, Failed)
    assert forgotten.code == "refinement_expired"


def test_slices_that_cannot_be_read_fail_alone(send, module_broker, store):
    pixels = commands.ct_slice(shift=201)
    good, lost, changed = (commands.stored_image(store, pixels) for _ in range(3))
    lost = lost.model_copy(update={"pixels_key": "studies/none/none.npy"})
    changed = changed.model_copy(update={"pixels_digest": array_digest(np.zeros(1))})

    send(commands.encode(good, lost, changed, model_digest=MODEL))

    assert [each.code for each in _event(module_broker).slices] == [
        None,
        "artifact_missing",
        "artifact_invalid",
    ]


def test_equal_seeds_are_one_model(ask):
    def add(seed):
        return ask(commands.add(FromSeed(variant="vit_t", seed=seed)))

    first, again, other = add(1), add(1), add(2)

    assert isinstance(first, CheckpointAdded)
    assert first.digest == again.digest != other.digest
    assert not first.trained


def test_an_upload_is_a_model_or_refused_and_nothing_is_shipped(ask, store):
    upload = FromUpload(upload_id=str(uuid.uuid4()))
    key = upload_key(upload.upload_id)

    assert ask(commands.add(upload)).code == "checkpoint_missing"
    store.put(key, b"")
    assert ask(commands.add(upload)).code == "checkpoint_refused"
    store.put(key, b"weights")
    assert ask(commands.add(upload)).trained
    assert not store.exists(key)
    assert ask(commands.add(FromPackage())).code == "checkpoint_missing"


def test_what_is_fine_tuned_longer_is_better(send, module_broker, store):
    data, parent = commands.learning_set(store), MODEL

    def trained(epochs):
        command = FineTune(
            run_id=str(uuid.uuid4()),
            attempt=1,
            parent_digest=parent,
            data=data,
            recipe=Recipe(epochs=epochs),
        )
        send(command)
        ended = _learning_event(module_broker, TrainingEnded)
        assert (ended.run_id, ended.state) == (command.run_id, "finished")
        assert store.exists(checkpoint_key(ended.checkpoint.digest))
        return ended.checkpoint.digest

    models = (parent, trained(2), trained(20))
    dices = {}
    for pair in (models[:2], models[1:]):
        command = Evaluate(
            evaluation_id=str(uuid.uuid4()), attempt=1, model_digests=pair, data=data, clicks=3
        )
        send(command)
        assert not _learning_event(module_broker, EvaluationEnded).code
        results = store.get(evaluation_key(command.evaluation_id))
        for row in EvaluationResults.model_validate_json(results).rows:
            assert row.subject == "S-2"
            assert row.dice_after == (row.dice,) * 3
            dices[row.model_digest] = row.dice

    assert dices[models[0]] == null_learning.UNTRAINED
    assert dices[models[0]] < dices[models[1]] < dices[models[2]] < 1


def test_a_run_that_is_to_stop_makes_no_model(send, module_broker, store):
    command = FineTune(
        run_id=str(uuid.uuid4()),
        attempt=1,
        parent_digest=MODEL,
        data=commands.learning_set(store),
        recipe=Recipe(),
    )
    module_broker.set(stop_key(command.run_id), 1)

    send(command)

    ended = _learning_event(module_broker, TrainingEnded)
    assert (ended.state, ended.checkpoint) == ("stopped", None)


def test_a_set_that_is_not_what_it_was_fails(send, module_broker, store):
    data = commands.learning_set(store).model_copy(update={"digest": "0" * 64})

    send(Evaluate(evaluation_id=str(uuid.uuid4()), attempt=1, model_digests=(MODEL,), data=data))

    assert _learning_event(module_broker, EvaluationEnded).code == "artifact_invalid"


def test_prepared_slices_are_scored_alike_each_time(send, module_broker, store):
    prepared, other = (
        commands.stored_image(store, commands.ct_slice(shift=shift)) for shift in (202, 203)
    )
    send(commands.encode(prepared, model_digest=MODEL))
    _event(module_broker)

    found = []
    for _ in range(2):
        send(commands.score(prepared, other, model_digest=MODEL))
        found.append(_learning_event(module_broker, SlicesScored).slices)

    assert [each.code for each in found[0]] == [None, "not_prepared"]
    assert unpack_features(found[0][0].features).shape == (FEATURES,)
    assert found[0][0].disagreement == found[1][0].disagreement


def test_a_mask_follows_from_its_prompts(store):
    image = commands.stored_image(store, commands.ct_slice())

    def mask(**prompts):
        reply = null_worker.answer(commands.segment(image, model_digest=MODEL, **prompts))
        assert isinstance(reply, Segmented)
        return masks.decode(reply.mask)

    drawn = np.zeros((60, 80), bool)
    drawn[50:, 70:] = True
    boxed = mask(box=Box(x0=10, y0=20, x1=31, y1=41))

    rows, columns = np.nonzero(boxed)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 20, 31, 41)
    assert np.array_equal(mask(points=(POINT,)), mask(points=(POINT,)))
    assert np.array_equal(mask(refine=EditedMask(mask=masks.encode(drawn))), drawn)


@pytest.mark.parametrize(
    ("prompts", "code"),
    [({}, "prompt_empty"), ({"points": (Point(x=80, y=0, positive=True),)}, "prompt_outside")],
)
def test_it_refuses_as_the_worker_does(store, prompts, code):
    image = commands.stored_image(store, commands.ct_slice())

    reply = null_worker.answer(commands.segment(image, model_digest=MODEL, **prompts))

    assert isinstance(reply, Failed)
    assert reply.code == code


def test_heartbeats_are_those_of_living_workers(services, module_broker):
    with null_worker.heartbeats(services.redis_url):
        pass

    assert all(module_broker.exists(f"heartbeat:{queue}") for queue in null_worker.QUEUES)


def _event(module_broker):
    """The next event on the server's queue."""
    return event_adapter.validate_json(_queued(module_broker))


def _learning_event(module_broker, kind):
    """The next of this kind; those before it are signs of life."""
    while True:
        event = learning_event_adapter.validate_json(_queued(module_broker))
        if isinstance(event, kind):
            return event


def _queued(module_broker):
    """An event as Celery carries it."""
    queued = module_broker.blpop([EVENT_QUEUE], timeout=30)
    assert queued is not None
    return json.loads(base64.b64decode(json.loads(queued[1])["body"]))[0][0]
