"""The commands, as Celery tasks: parse, call one function, answer.

A command that does not parse is answered with ``message_invalid`` where it says whom to answer, and
dropped with a line in the log where it does not. Nothing a command contains can end the worker.
The tasks are not shared: Celery would give them to every other application of the process too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any, Final, TypeVar

import numpy as np
import redis
import torch
from celery.signals import worker_init, worker_shutting_down
from kombu.exceptions import OperationalError
from pydantic import ValidationError

from mlworker.app import app, connection, heartbeat, queue_of, settings
from mlworker.contract import masks
from mlworker.contract.artifacts import (
    Array,
    ArtifactError,
    checkpoint_key,
    embedding_key,
    logits_key,
    pack_array,
    unpack_array,
    upload_key,
)
from mlworker.contract.learning import (
    LEARNING_EVENT_TASK,
    Evaluate,
    FineTune,
    LearningEvent,
    ScoreItem,
    ScoreSlices,
    SliceScore,
    SlicesScored,
)
from mlworker.contract.messages import (
    EVENT_QUEUE,
    EVENT_TASK,
    AddCheckpoint,
    AwaitedCommand,
    CheckpointAdded,
    EditedMask,
    EncodedSlice,
    EncodeItem,
    EncodeSlices,
    Failed,
    FailureCode,
    FromPackage,
    FromSeed,
    FromUpload,
    Message,
    NotPrepared,
    Point,
    PreviousLogits,
    Refinement,
    Segmented,
    SegmentSlice,
    SlicesEncoded,
    Timing,
)
from mlworker.contract.ranking import pack_features
from mlworker.inference import geometry, scoring
from mlworker.inference.cache import (
    EMBEDDING_SHAPE,
    Embeddings,
    Models,
    decoding_part,
    encoding_part,
)
from mlworker.inference.predictor import Predictor
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint, CheckpointError, digest, untrained
from mlworker.model.foreign import converted
from mlworker.runs import Runs
from mlworker.storage import ArtifactMissing, Store

logger = logging.getLogger(__name__)

LOGITS_KEPT_S: Final = 600
REPLY_KEPT_S: Final = 60  # an answer that comes too late leaves nothing behind

torch.set_num_threads(settings.threads)

store = Store(settings.storage_url)
predictors = Models(store, part=decoding_part)
encoders = Models(store, part=partial(encoding_part, precision=settings.precision))
embeddings = Embeddings(store, limit_bytes=settings.embedding_cache_bytes)


class Refused(Exception):
    """The command cannot be carried out; the code and the sentence travel back."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code
        self.message = message


@worker_init.connect  # type: ignore[untyped-decorator]
def _warm_up(**_: Any) -> None:
    """Decode once before the first click: the first run allocates and chooses kernels."""
    if queue_of(sys.argv) != SegmentSlice.queue:
        return
    predictor = Predictor(sam_med2d.build_prompt_encoder("vit_b"), sam_med2d.build_mask_decoder())
    predictor.predict(
        torch.zeros(EMBEDDING_SHAPE),
        height=512,
        width=512,
        points=(Point(x=0, y=0, positive=True),),
    )


@app.task(name=SegmentSlice.task, shared=False)  # type: ignore[untyped-decorator]
def segment_slice_task(payload: str) -> None:
    """Answer prompts on a prepared slice."""
    _answer(SegmentSlice, payload, segment)


@app.task(name=EncodeSlices.task, shared=False)  # type: ignore[untyped-decorator]
def encode_slices_task(payload: str) -> None:
    """Make embeddings and say so in an event."""
    try:
        command = EncodeSlices.model_validate_json(payload)
    except ValidationError as error:
        logger.error("A command to encode was dropped: %s", error)
        return
    with heartbeat.during_task():
        event = encode_slices(command)
    try:
        app.send_task(EVENT_TASK, args=[event.model_dump_json()], queue=EVENT_QUEUE)
    except (OperationalError, OSError) as error:
        # The embeddings are stored: the server asks again and is answered at once.
        logger.warning("An event could not be sent: %s", error)


@app.task(name=AddCheckpoint.task, shared=False)  # type: ignore[untyped-decorator]
def add_checkpoint_task(payload: str) -> None:
    """Bring a model into the store."""
    _answer(AddCheckpoint, payload, add_checkpoint)


@app.task(name=FineTune.task, shared=False)  # type: ignore[untyped-decorator]
def fine_tune_task(payload: str) -> None:
    """Begin or go on with a run; it tells by events how it goes."""
    _take(FineTune, payload)


@app.task(name=Evaluate.task, shared=False)  # type: ignore[untyped-decorator]
def evaluate_task(payload: str) -> None:
    """Judge models; told by events as well."""
    _take(Evaluate, payload)


@app.task(name=ScoreSlices.task, shared=False)  # type: ignore[untyped-decorator]
def score_slices_task(payload: str) -> None:
    """Say how sure a model is of slices, in an event."""
    try:
        command = ScoreSlices.model_validate_json(payload)
    except ValidationError as error:
        logger.error("A command to score was dropped: %s", error)
        return
    with heartbeat.during_task():
        event = score_slices(command)
    _tell(event)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end_runs(**_: Any) -> None:
    runs.end()


def _take(kind: type[FineTune] | type[Evaluate], payload: str) -> None:
    try:
        runs.take(kind.model_validate_json(payload))
    except ValidationError as error:
        logger.error("A command to learn was dropped: %s", error)


def _tell(event: LearningEvent) -> None:
    try:
        app.send_task(LEARNING_EVENT_TASK, args=[event.model_dump_json()], queue=EVENT_QUEUE)
    except (OperationalError, OSError) as error:
        # The last word is heard when the server asks again: what was made is in the store.
        logger.warning("An event could not be sent: %s", error)


runs = Runs(store, connection, tell=_tell)


def segment(command: SegmentSlice) -> tuple[Message, Array | None]:
    """A proposal and its low-resolution logits, or NotPrepared; raises Refused."""
    started = time.time()
    image = command.image
    _refuse_what_misses_the_slice(command)
    embedding = embeddings.get(embedding_key(image, model_digest=command.model_digest))
    if embedding is None:
        return NotPrepared(request_id=command.request_id), None
    predictor = predictors.get(command.model_digest)
    mask_prompt = _mask_prompt(command.refine)
    loaded = time.time()
    prediction = predictor.predict(
        embedding,
        height=image.height,
        width=image.width,
        points=command.points,
        box=command.box,
        mask_prompt=mask_prompt,
    )
    runs = masks.encode(prediction.mask)
    decoded = time.time()
    reply = Segmented(
        request_id=command.request_id,
        proposal_id=command.request_id,
        mask=runs,
        predicted_iou=prediction.predicted_iou,
        model_digest=command.model_digest,
        timing=Timing(
            queue_ms=max(0.0, started - command.sent_at) * 1e3,
            load_ms=(loaded - started) * 1e3,
            encode_ms=0.0,
            decode_ms=(decoded - loaded) * 1e3,
            total_ms=(decoded - command.sent_at) * 1e3,
        ),
    )
    return reply, prediction.low_res_logits.numpy().astype(np.float16)


def encode_slices(command: EncodeSlices) -> SlicesEncoded:
    """Make what does not exist yet; a bad slice fails alone."""
    fates: dict[str, EncodedSlice] = {}
    missing: dict[str, list[EncodeItem]] = {}  # by key: equal slices are encoded once
    prepared: dict[str, geometry.Rgb] = {}
    for item in command.items:
        key = embedding_key(item.image, model_digest=command.model_digest)
        try:
            if not store.exists(key):
                prepared[key] = geometry.to_rgb(store.get_pixels(item.image), item.image)
                missing.setdefault(key, []).append(item)
            fates[item.encoding_id] = EncodedSlice(encoding_id=item.encoding_id)
        except Exception as error:  # whatever a slice holds, it must not take its batch with it
            fates[item.encoding_id] = _fate(item, error)
    if prepared:
        try:
            made = encoders.get(command.model_digest).encode(list(prepared.values()))
            for key, embedding in zip(prepared, made, strict=True):
                store.put_array(key, embedding)
                del missing[key]
        except Exception as error:
            for item in (item for items in missing.values() for item in items):
                fates[item.encoding_id] = _fate(item, error)
    return SlicesEncoded(
        model_digest=command.model_digest,
        slices=tuple(fates[item.encoding_id] for item in command.items),
    )


def score_slices(command: ScoreSlices) -> SlicesScored:
    """What a model thinks of slices that it has embeddings of; a bad slice fails alone."""
    return SlicesScored(
        ranking_id=command.ranking_id,
        model_digest=command.model_digest,
        slices=tuple(_scored(item, model_digest=command.model_digest) for item in command.items),
    )


def add_checkpoint(command: AddCheckpoint) -> tuple[Message, None]:
    """Store a checkpoint; equal sources give equal digests. An upload is gone afterwards."""
    match command.source:
        case FromSeed() as source:
            data = untrained(source.variant, seed=source.seed)
        case FromPackage() as source:
            data = _shipped(source)
        case FromUpload() as source:
            data = _uploaded(source)
    name = digest(data)
    if not store.exists(checkpoint_key(name)):
        store.put(checkpoint_key(name), data)
    with store.as_file(checkpoint_key(name)) as path:
        metadata = Checkpoint(path).metadata
    return CheckpointAdded(
        request_id=command.request_id,
        digest=name,
        variant=metadata.variant,
        image_size=metadata.image_size,
        adapters=metadata.adapters,
        preparation=metadata.preparation,
        trained=metadata.trained,
        origin=metadata.origin,
        parent=metadata.parent,
        metrics=metadata.metrics,
    ), None


def _scored(item: ScoreItem, *, model_digest: str) -> SliceScore:
    try:
        embedding = embeddings.get(embedding_key(item.image, model_digest=model_digest))
        if embedding is None:
            return SliceScore(
                slice_id=item.slice_id,
                code="not_prepared",
                message="The slice has no embedding of this model.",
            )
        scores = scoring.score(
            predictors.get(model_digest),
            embedding,
            height=item.image.height,
            width=item.image.width,
        )
    except Exception as error:  # whatever a slice holds, it must not take its batch with it
        code, message = _explain(error)
        return SliceScore(slice_id=item.slice_id, code=code, message=message)
    return SliceScore(
        slice_id=item.slice_id,
        predicted_iou=scores.predicted_iou,
        disagreement=scores.disagreement,
        instability=scores.instability,
        features=pack_features(scores.features),
    )


def _shipped(source: FromPackage) -> bytes:
    file = resources.files("mlworker.recipes") / f"{source.name}.safetensors"
    if not file.is_file():
        raise Refused("checkpoint_missing", "No trained model comes with this version.")
    return file.read_bytes()


def _uploaded(source: FromUpload) -> bytes:
    key = upload_key(source.upload_id)
    try:
        with store.as_file(key) as path:
            data = converted(path, adapters=source.adapters, image_size=sam_med2d.IMAGE_SIZE)
    except ArtifactMissing:
        raise Refused(
            "checkpoint_missing", "The file that was uploaded is not there; upload it again."
        ) from None
    except CheckpointError as error:
        sentence = str(error)
        raise Refused("checkpoint_refused", f"{sentence[0].upper()}{sentence[1:]}.") from error
    finally:
        store.remove(key)
    return data


CommandT = TypeVar("CommandT", bound=AwaitedCommand)


def _answer(
    kind: type[CommandT],
    payload: str,
    carry_out: Callable[[CommandT], tuple[Message, Array | None]],
) -> None:
    try:
        command = kind.model_validate_json(payload)
    except ValidationError as error:
        _answer_invalid(payload, error)
        return
    if time.time() > command.expires_at:
        return  # nobody waits any more
    logits: Array | None = None
    reply: Message
    with heartbeat.during_task():
        try:
            reply, logits = carry_out(command)
        except Exception as error:
            reply = _failure(command.request_id, error)
    _send(command.reply_to, reply, logits=logits)


def _send(reply_to: str, reply: Message, *, logits: Array | None = None) -> None:
    try:
        with connection.pipeline(transaction=False) as pipeline:
            if isinstance(reply, Segmented) and logits is not None:
                pipeline.set(logits_key(reply.proposal_id), pack_array(logits), ex=LOGITS_KEPT_S)
            pipeline.rpush(reply_to, reply.model_dump_json())
            pipeline.expire(reply_to, REPLY_KEPT_S)
            pipeline.execute()
    except redis.RedisError as error:
        logger.warning("An answer could not be sent: %s", error)


def _answer_invalid(payload: str, error: ValidationError) -> None:
    problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    try:
        raw: Any = json.loads(payload)
        request_id, reply_to = str(raw["request_id"]), str(raw["reply_to"])
        reply = Failed(
            request_id=request_id,
            code="message_invalid",
            message=f"The worker does not understand the command ({problems}).",
        )
    except (ValueError, KeyError, TypeError):
        logger.error("A command that cannot be answered was dropped: %s", problems)
        return
    _send(reply_to, reply)


def _failure(request_id: str, error: Exception) -> Failed:
    code, message = _explain(error)
    return Failed(request_id=request_id, code=code, message=message)


def _fate(item: EncodeItem, error: Exception) -> EncodedSlice:
    code, message = _explain(error)
    return EncodedSlice(encoding_id=item.encoding_id, code=code, message=message)


def _explain(error: Exception) -> tuple[FailureCode, str]:
    match error:
        case Refused():
            return error.code, error.message
        case ArtifactMissing():
            return "artifact_missing", f"The worker did not find what it needs: {error}."
        case ArtifactError() | CheckpointError():
            return "artifact_invalid", f"The worker cannot use what is stored: {error}."
        case _:
            logger.exception("A command failed", exc_info=error)
            return "worker_failed", "The worker failed; its log has the details."


def _mask_prompt(refine: Refinement | None) -> torch.Tensor | None:
    match refine:
        case None:
            return None
        case EditedMask():
            return geometry.mask_to_low_res(masks.decode(refine.mask))
        case PreviousLogits():
            packed = connection.get(logits_key(refine.proposal_id))
            if packed is None:
                raise Refused(
                    "refinement_expired",
                    "The last proposal is too old to be refined; refine its mask instead.",
                )
            assert isinstance(packed, bytes)
            logits = torch.from_numpy(unpack_array(packed).astype(np.float32))
            return torch.sigmoid(logits)  # as in training: probabilities, not logits


def _refuse_what_misses_the_slice(command: SegmentSlice) -> None:
    if not command.points and command.box is None and command.refine is None:
        raise Refused("prompt_empty", "A prompt needs a point, a box or a mask.")
    width, height = command.image.width, command.image.height
    for point in command.points:
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise Refused("prompt_outside", "A point lies outside the slice.")
    box = command.box
    if box is not None:
        if not (box.x0 < box.x1 and box.y0 < box.y1):
            raise Refused("prompt_outside", "The box is empty.")
        if box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height:
            raise Refused("prompt_outside", "The box lies outside the slice.")
    if isinstance(command.refine, EditedMask) and (
        command.refine.mask.height != height or command.refine.mask.width != width
    ):
        raise Refused("prompt_outside", "The mask to refine is not of the slice's size.")
