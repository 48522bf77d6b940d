"""The worker's tasks on a real broker and a real store, as one process would run them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import uuid
from importlib import resources

import numpy as np
import pytest
import torch

from mlworker import tasks
from mlworker.contract import masks
from mlworker.contract.artifacts import (
    checkpoint_key,
    embedding_key,
    logits_key,
    pack_array,
    unpack_array,
    upload_key,
)
from mlworker.contract.learning import (
    LEARNING_EVENT_TASK,
    SlicesScored,
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
    SlicesEncoded,
    event_adapter,
    reply_adapter,
)
from mlworker.contract.ranking import unpack_features
from mlworker.inference.cache import decoding_part
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint, digest_of_file
from tests.mlworker import commands, reference

POINT = Point(x=40, y=30, positive=True)


@pytest.fixture(scope="module")
def store(services):
    return tasks.store


@pytest.fixture(scope="module")
def model(store, small_checkpoint):
    name = digest_of_file(small_checkpoint)
    store.put(checkpoint_key(name), small_checkpoint.read_bytes())
    return name


@pytest.fixture(scope="module")
def prepared(store, model):
    """A slice that has been encoded."""
    image = commands.stored_image(store, commands.ct_slice())
    event = tasks.encode_slices(commands.encode(image, model_digest=model))
    assert [each.code for each in event.slices] == [None]
    return image


@pytest.fixture
def ask(broker):
    """Run a task with a command; what arrives on the list where the answer is awaited."""

    def _ask(task, command):
        task(command.model_dump_json())
        answers = broker.lrange(command.reply_to, 0, -1)
        assert len(answers) <= 1
        return reply_adapter.validate_json(answers[0]) if answers else None

    return _ask


@pytest.fixture
def segment(ask, model):
    def _segment(image, **prompts):
        return ask(tasks.segment_slice_task, commands.segment(image, model_digest=model, **prompts))

    return _segment


@pytest.fixture
def encoder_calls(model):
    """How often the image encoder runs: counted by torch, on the module that serves."""
    calls = []
    encoder = tasks.encoders.get(model).image_encoder
    hook = encoder.register_forward_hook(lambda _m, inputs, _o: calls.append(len(inputs[0])))
    yield calls
    hook.remove()


def test_prompts_on_a_prepared_slice_become_a_mask(broker, ask, prepared, model):
    command = commands.segment(prepared, model_digest=model, points=(POINT,))

    reply = ask(tasks.segment_slice_task, command)

    assert isinstance(reply, Segmented)
    assert (reply.request_id, reply.proposal_id) == (command.request_id, command.request_id)
    assert reply.model_digest == model
    assert masks.decode(reply.mask).shape == (60, 80)
    timing = reply.timing
    assert timing.encode_ms == 0
    assert 0 < timing.load_ms + timing.decode_ms <= timing.total_ms
    assert timing.queue_ms >= 0


def test_the_mask_is_what_the_model_says(segment, prepared, model, store):
    """The same as decoding by hand from the stored embedding."""
    box = Box(x0=10, y0=10, x1=60, y1=50)
    points = (POINT, Point(x=5, y=5, positive=False))
    with store.as_file(checkpoint_key(model)) as path:
        predictor = decoding_part(Checkpoint(path))
    embedding = store.get_array(embedding_key(prepared, model_digest=model))
    assert (embedding.shape, embedding.dtype.name) == ((256, 16, 16), "float16")

    reply = segment(prepared, points=points, box=box)

    expected = predictor.predict(
        torch.from_numpy(embedding), height=60, width=80, points=points, box=box
    )
    assert reply.mask == masks.encode(expected.mask)
    assert reply.predicted_iou == expected.predicted_iou


def test_a_click_makes_no_embedding(segment, prepared, encoder_calls):
    for points in [(POINT,), (POINT, POINT), (POINT, POINT, POINT)]:
        assert isinstance(segment(prepared, points=points), Segmented)

    assert encoder_calls == []


def test_a_late_answer_leaves_nothing_behind(broker, ask, prepared, model):
    command = commands.segment(prepared, model_digest=model, points=(POINT,))

    ask(tasks.segment_slice_task, command)

    assert 0 < broker.ttl(command.reply_to) <= 60
    assert 500 < broker.ttl(logits_key(command.request_id)) <= 600


def test_a_command_nobody_waits_for_is_dropped(broker, prepared, model):
    fields = commands.awaited(timeout_s=-1)
    command = commands.segment(prepared, model_digest=model, points=(POINT,))
    command = command.model_copy(update=fields)

    tasks.segment_slice_task(command.model_dump_json())

    assert broker.keys() == []


def test_the_last_proposal_is_refined_by_its_probabilities(broker, segment, prepared, model, store):
    first = segment(prepared, points=(POINT,))
    logits = unpack_array(broker.get(logits_key(first.proposal_id)))
    assert (logits.shape, logits.dtype.name) == ((64, 64), "float16")
    more = (POINT, Point(x=70, y=50, positive=False))

    refined = segment(prepared, points=more, refine=PreviousLogits(proposal_id=first.proposal_id))

    expected = tasks.predictors.get(model).predict(
        torch.from_numpy(store.get_array(embedding_key(prepared, model_digest=model))),
        height=60,
        width=80,
        points=more,
        mask_prompt=torch.sigmoid(torch.from_numpy(logits.astype(np.float32))),
    )
    assert refined.mask == masks.encode(expected.mask)
    assert refined.mask != segment(prepared, points=more).mask


def test_a_mask_corrected_by_hand_is_refined(segment, prepared):
    corrected = np.zeros((60, 80), bool)
    corrected[20:40, 30:50] = True

    refined = segment(prepared, refine=EditedMask(mask=masks.encode(corrected)))
    other = segment(prepared, refine=EditedMask(mask=masks.encode(~corrected)))

    assert isinstance(refined, Segmented)
    assert refined.predicted_iou != other.predicted_iou


def test_a_proposal_that_is_forgotten_cannot_be_refined(segment, prepared):
    refine = PreviousLogits(proposal_id=str(uuid.uuid4()))

    assert _refusal(segment(prepared, points=(POINT,), refine=refine)) == "refinement_expired"


def test_a_slice_without_an_embedding_is_not_prepared(ask, model, store):
    image = commands.stored_image(store, commands.ct_slice(shift=1))
    command = commands.segment(image, model_digest=model, points=(POINT,))

    reply = ask(tasks.segment_slice_task, command)

    assert reply == NotPrepared(request_id=command.request_id)


def test_an_unprepared_slice_can_be_clicked_once_it_is_encoded(segment, model, store):
    image = commands.stored_image(store, commands.ct_slice(shift=2))
    assert isinstance(segment(image, points=(POINT,)), NotPrepared)

    tasks.encode_slices(commands.encode(image, model_digest=model))

    assert isinstance(segment(image, points=(POINT,)), Segmented)


@pytest.mark.parametrize(
    ("prompts", "code"),
    [
        ({}, "prompt_empty"),
        ({"points": (Point(x=80, y=30, positive=True),)}, "prompt_outside"),
        ({"points": (POINT, Point(x=3, y=-0.5, positive=False))}, "prompt_outside"),
        ({"box": Box(x0=10, y0=10, x1=10, y1=20)}, "prompt_outside"),
        ({"box": Box(x0=30, y0=10, x1=20, y1=20)}, "prompt_outside"),
        ({"box": Box(x0=80, y0=0, x1=90, y1=60)}, "prompt_outside"),
        ({"box": Box(x0=0, y0=-9, x1=80, y1=0)}, "prompt_outside"),
        ({"refine": EditedMask(mask=masks.empty(80, 60))}, "prompt_outside"),
    ],
    ids=[
        "nothing",
        "a point right of the slice",
        "a point above it",
        "an empty box",
        "a box inside out",
        "a box beside it",
        "a box above it",
        "a mask of another size",
    ],
)
def test_prompts_that_miss_the_slice_are_refused(segment, prepared, prompts, code):
    assert _refusal(segment(prepared, **prompts)) == code


def test_a_box_may_reach_over_the_edge(segment, prepared):
    assert isinstance(segment(prepared, box=Box(x0=-5, y0=-5, x1=85, y1=65)), Segmented)


def test_a_model_that_is_not_stored_is_said_to_be_missing(ask, store, prepared, model):
    other = "0" * 64
    store.put_array(
        embedding_key(prepared, model_digest=other), np.zeros((256, 16, 16), np.float16)
    )
    command = commands.segment(prepared, model_digest=other, points=(POINT,))

    reply = ask(tasks.segment_slice_task, command)

    assert _refusal(reply) == "artifact_missing"
    assert checkpoint_key(other) in reply.message


@pytest.mark.parametrize(
    "change",
    [{"contract_version": 2}, {"opacity": 0.5}, {"model_digest": "latest"}, {"points": None}],
    ids=["another version", "an unknown field", "no digest", "no points"],
)
def test_what_is_not_understood_is_said_to_be_invalid(broker, prepared, model, change):
    command = commands.segment(prepared, model_digest=model, points=(POINT,))
    message = json.loads(command.model_dump_json()) | change

    tasks.segment_slice_task(json.dumps(message))

    reply = Failed.model_validate_json(broker.lindex(command.reply_to, 0))
    assert _refusal(reply) == "message_invalid"
    assert reply.request_id == command.request_id
    assert next(iter(change)) in reply.message


@pytest.mark.parametrize(
    "payload",
    ["", "{", "[]", "null", '{"request_id": "1"}', '{"request_id": "x y", "reply_to": "r"}', 7],
)
@pytest.mark.parametrize(
    "name", ["segment_slice_task", "encode_slices_task", "add_checkpoint_task"]
)
def test_what_cannot_be_answered_is_dropped(broker, name, payload, caplog):
    getattr(tasks, name)(payload)

    assert broker.keys() == []
    assert "dropped" in caplog.text


def test_encoding_is_told_in_an_event(broker, store, model):
    image = commands.stored_image(store, commands.ct_slice(shift=3))
    command = commands.encode(image, model_digest=model)

    tasks.encode_slices_task(command.model_dump_json())

    assert _event(broker) == SlicesEncoded(
        model_digest=model, slices=({"encoding_id": command.items[0].encoding_id},)
    )
    assert store.exists(embedding_key(image, model_digest=model))


def test_what_exists_is_not_encoded_again(store, model, encoder_calls):
    pixels = [commands.ct_slice(shift=shift) for shift in (4, 5)]
    images = [commands.stored_image(store, each) for each in pixels]

    first = tasks.encode_slices(commands.encode(images[0], model_digest=model))
    both = tasks.encode_slices(commands.encode(*images, model_digest=model))
    again = tasks.encode_slices(commands.encode(*images, model_digest=model))

    assert encoder_calls == [1, 1]
    assert [len(e.slices) for e in (first, both, again)] == [1, 2, 2]
    assert all(each.code is None for e in (first, both, again) for each in e.slices)


def test_equal_slices_of_a_batch_are_encoded_once(store, model, encoder_calls):
    pixels = commands.ct_slice(shift=6)
    images = [commands.stored_image(store, pixels) for _ in range(3)]

    event = tasks.encode_slices(commands.encode(*images, model_digest=model))

    assert encoder_calls == [1]
    assert [each.code for each in event.slices] == [None] * 3


def test_a_bad_slice_fails_alone(store, model, encoder_calls):
    good, lost, changed, resized = (
        commands.stored_image(store, commands.ct_slice(shift=shift)) for shift in (7, 8, 9, 10)
    )
    lost = lost.model_copy(update={"pixels_key": "studies/none/none.npy"})
    store.put_array(changed.pixels_key, commands.ct_slice(shift=11))
    resized = resized.model_copy(update={"height": 61})

    event = tasks.encode_slices(commands.encode(lost, good, changed, resized, model_digest=model))

    assert [each.code for each in event.slices] == [
        "artifact_missing",
        None,
        "artifact_invalid",
        "artifact_invalid",
    ]
    assert encoder_calls == [1]
    assert store.exists(embedding_key(good, model_digest=model))
    assert not any(
        store.exists(embedding_key(image, model_digest=model)) for image in (lost, changed, resized)
    )


def test_a_slice_that_is_no_array_fails_alone(store, model):
    good, bad = (commands.stored_image(store, commands.ct_slice(shift=shift)) for shift in (12, 13))
    store.put(bad.pixels_key, b"not an array")

    event = tasks.encode_slices(commands.encode(bad, good, model_digest=model))

    assert [each.code for each in event.slices] == ["artifact_invalid", None]
    assert event.slices[0].message.endswith(".")


def test_without_its_model_a_batch_fails_and_what_was_there_stays(store, prepared, model):
    other = "0" * 63 + "1"
    image = commands.stored_image(store, commands.ct_slice(shift=14))
    store.put_array(
        embedding_key(prepared, model_digest=other), np.zeros((256, 16, 16), np.float16)
    )

    event = tasks.encode_slices(commands.encode(prepared, image, model_digest=other))

    assert [each.code for each in event.slices] == [None, "artifact_missing"]


def test_colour_is_encoded_and_clicked(segment, store, model):
    image = commands.stored_image(store, reference.image("b"))

    event = tasks.encode_slices(commands.encode(image, model_digest=model))

    assert [each.code for each in event.slices] == [None]
    reply = segment(image, points=(POINT,))
    assert (reply.mask.height, reply.mask.width) == (181, 258)


@pytest.fixture
def add(ask):
    """Ask for a model from a source."""
    return lambda source: ask(tasks.add_checkpoint_task, commands.add(source))


def test_a_seed_becomes_a_checkpoint_in_the_store(add, store):
    first, again, other = (add(FromSeed(variant="vit_t", seed=seed)) for seed in (1, 1, 2))

    assert first == CheckpointAdded(
        request_id=first.request_id,
        digest=first.digest,
        variant="vit_t",
        image_size=256,
        adapters=True,
        preparation=1,
        trained=False,
        origin="seed 1",
    )
    assert first.digest == again.digest != other.digest
    with store.as_file(checkpoint_key(first.digest)) as path:
        assert digest_of_file(path) == first.digest
        assert Checkpoint(path).metadata.origin == "seed 1"


@pytest.fixture
def upload(store):
    """Put a file where uploads lie."""

    def _upload(data, **choices):
        source = FromUpload(upload_id=str(uuid.uuid4()), **choices)
        store.put(upload_key(source.upload_id), data)
        return source

    return _upload


def test_an_upload_becomes_a_checkpoint_and_is_taken_away(add, upload, store):
    weights = io.BytesIO()
    state = sam_med2d.build("vit_t", adapters=False).state_dict()
    torch.save({"model": state}, weights)
    source = upload(weights.getvalue())

    reply = add(source)

    assert (reply.variant, reply.adapters, reply.trained) == ("vit_t", False, True)
    assert reply.parent == hashlib.sha256(weights.getvalue()).hexdigest()
    with store.as_file(checkpoint_key(reply.digest)) as path:
        loaded = Checkpoint(path).mask_decoder().state_dict()
    assert all(torch.equal(state[f"mask_decoder.{key}"], value) for key, value in loaded.items())
    assert not store.exists(upload_key(source.upload_id))
    assert add(upload(weights.getvalue(), adapters="fresh")).adapters


def test_an_upload_of_ours_stays_what_it_is(add, upload, small_checkpoint):
    reply = add(upload(small_checkpoint.read_bytes()))

    assert reply.digest == digest_of_file(small_checkpoint)
    assert reply.origin == "seed 15"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The file is empty."),
        (b"PK\x03\x04 and no more", "The file is cut off or damaged"),
        (b"text", "The file is no checkpoint"),
    ],
    ids=["empty", "cut off", "text"],
)
def test_an_upload_that_is_no_checkpoint_is_refused_and_taken_away(
    add, upload, store, data, sentence
):
    source = upload(data)

    reply = add(source)

    assert _refusal(reply) == "checkpoint_refused"
    assert sentence in reply.message
    assert source.upload_id not in reply.message
    assert not store.exists(upload_key(source.upload_id))


def test_an_upload_that_is_not_there_is_said_to_be_missing(add):
    assert _refusal(add(FromUpload(upload_id=str(uuid.uuid4())))) == "checkpoint_missing"


def test_the_model_that_is_shipped_is_added_or_said_to_be_missing(add):
    shipped = resources.files("mlworker.recipes") / "default.safetensors"

    reply = add(FromPackage())

    if shipped.is_file():
        assert reply.digest == hashlib.sha256(shipped.read_bytes()).hexdigest()
        assert reply.trained
    else:
        assert _refusal(reply) == "checkpoint_missing"


def test_a_failure_of_ours_is_answered_and_logged(broker, ask, prepared, model, caplog):
    """Logits that are no array: nobody's doing but ours, and the next prompt is answered."""
    proposal = str(uuid.uuid4())
    broker.set(logits_key(proposal), pack_array(np.array(["text"])))
    refine = PreviousLogits(proposal_id=proposal)
    command = commands.segment(prepared, model_digest=model, points=(POINT,), refine=refine)

    reply = ask(tasks.segment_slice_task, command)

    assert _refusal(reply) == "worker_failed"
    assert "text" not in reply.message
    assert "A command failed" in caplog.text
    after = commands.segment(prepared, model_digest=model, points=(POINT,))
    assert isinstance(ask(tasks.segment_slice_task, after), Segmented)


def _event(broker):
    """The event on the server's queue, as Celery carries it."""
    (queued,) = broker.lrange(EVENT_QUEUE, 0, -1)
    message = json.loads(queued)
    assert message["headers"]["task"] == "delineate.receive_worker_event"
    assert message["content-type"] == "application/json"
    (payload,) = json.loads(base64.b64decode(message["body"]))[0]
    return event_adapter.validate_json(payload)


def _refusal(reply):
    assert isinstance(reply, Failed)
    assert reply.message.endswith(".")
    return reply.code


def test_slices_are_scored_and_what_has_no_embedding_says_so(broker, prepared, model):
    unprepared = prepared.model_copy(update={"pixels_digest": "0" * 64})
    command = commands.score(prepared, unprepared, model_digest=model)

    tasks.score_slices_task(command.model_dump_json())

    event = learning_event_of(broker)
    assert isinstance(event, SlicesScored)
    assert (event.ranking_id, event.model_digest) == (command.ranking_id, model)
    scored, missing = event.slices
    assert (scored.slice_id, missing.slice_id) == tuple(i.slice_id for i in command.items)
    assert scored.code is None
    assert all(0 <= v <= 1 for v in (scored.predicted_iou, scored.disagreement, scored.instability))
    stored = tasks.store.get_array(embedding_key(prepared, model_digest=model))
    features = unpack_features(scored.features)
    np.testing.assert_allclose(features, stored.astype(np.float32).mean((1, 2)), atol=5e-3)
    assert (missing.code, missing.features) == ("not_prepared", "")


def test_scores_of_a_model_that_is_not_there_say_so(store, prepared):
    absent = "ee" * 32
    command = commands.score(prepared, model_digest=absent)
    store.put_array(
        embedding_key(prepared, model_digest=absent), np.zeros((256, 16, 16), np.float16)
    )
    (scored,) = tasks.score_slices(command).slices
    assert scored.code == "artifact_missing"
    assert scored.message.endswith(".")


def test_a_command_to_score_that_is_none_is_dropped(broker):
    tasks.score_slices_task('{"kind": "score_slices"}')
    assert broker.llen(EVENT_QUEUE) == 0


def learning_event_of(broker):
    """The one event that waits for the server."""
    (message,) = broker.lrange(EVENT_QUEUE, 0, -1)
    sent = json.loads(message)
    assert sent["headers"]["task"] == LEARNING_EVENT_TASK
    (payload,), _, _ = json.loads(base64.b64decode(sent["body"]))
    return learning_event_adapter.validate_json(payload)
