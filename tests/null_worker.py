"""A worker that obeys the contract without a model: ellipses instead of masks.

It takes commands from a real broker, reads and writes the real object store, and answers as the
worker does, in milliseconds and without torch:

    with null_worker.running(redis_url, storage_url):
        ...

`answer(command)` alone is the reply to prompts on a slice that is prepared.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt
import redis
from celery import Celery
from celery._state import get_current_app
from celery.contrib.testing.worker import start_worker

from mlworker.contract import artifacts, broker, masks
from mlworker.contract.artifacts import ArtifactError
from mlworker.contract.learning import (
    LEARNING_EVENT_TASK,
    Evaluate,
    FineTune,
    LearningEvent,
    ScoreSlices,
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
    NotPrepared,
    PreviousLogits,
    Reply,
    Segmented,
    SegmentSlice,
    SlicesEncoded,
    Timing,
)
from mlworker.storage import Store
from tests import null_learning

Mask = npt.NDArray[np.bool_]

PREDICTED_IOU = 0.75
QUEUES = (SegmentSlice.queue, EncodeSlices.queue, AddCheckpoint.queue)


def answer(command: SegmentSlice) -> Reply:
    """The reply to prompts on a prepared slice: the same prompts, the same mask."""
    image = command.image
    misses = any(not (0 <= p.x < image.width and 0 <= p.y < image.height) for p in command.points)
    if not command.points and command.box is None and command.refine is None:
        return Failed(
            request_id=command.request_id,
            code="prompt_empty",
            message="A prompt needs a point, a box or a mask.",
        )
    if misses:
        return Failed(
            request_id=command.request_id,
            code="prompt_outside",
            message="A point lies outside the slice.",
        )
    now = time.time()
    return Segmented(
        request_id=command.request_id,
        proposal_id=command.request_id,
        mask=masks.encode(_mask(command)),
        predicted_iou=PREDICTED_IOU,
        model_digest=command.model_digest,
        timing=Timing(
            queue_ms=max(0.0, now - command.sent_at) * 1e3,
            load_ms=0.0,
            encode_ms=0.0,
            decode_ms=1.0,
            total_ms=max(0.0, now - command.sent_at) * 1e3 + 1.0,
        ),
    )


@contextmanager
def running(
    redis_url: str, storage_url: str, *, queues: tuple[str, ...] = QUEUES
) -> Iterator[None]:
    """Serve ``queues`` from a thread for as long as the context lasts."""
    app = _application(redis_url, storage_url)
    before = get_current_app()
    try:
        with start_worker(app, queues=list(queues), pool="solo", perform_ping_check=False):
            yield
    finally:
        # Starting has made it everybody's application, which tasks of the server are sent by.
        before.set_current()
        before.set_default()


@contextmanager
def heartbeats(redis_url: str, *, queues: tuple[str, ...] = QUEUES) -> Iterator[None]:
    """Say every second, as the workers do, that ``queues`` are served."""
    ended = threading.Event()
    client = redis.Redis.from_url(redis_url)

    def beat() -> None:
        while True:
            for queue in queues:
                client.set(f"heartbeat:{queue}", time.time(), ex=60)
            if ended.wait(timeout=1):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        client.close()


def _application(redis_url: str, storage_url: str) -> Celery:
    app = Celery("null-worker", set_as_current=False)
    app.conf.update(
        broker_url=redis_url,
        broker_transport_options=broker.transport_options(socket_timeout_s=30),
        broker_connection_retry_on_startup=True,
        accept_content=["json"],
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
    )
    store = Store(storage_url)
    connection = redis.Redis.from_url(redis_url)

    def segment_slice(payload: str) -> None:
        command = SegmentSlice.model_validate_json(payload)
        if time.time() <= command.expires_at:
            _send(connection, command, _reply(command, store=store, connection=connection))

    def encode_slices(payload: str) -> None:
        command = EncodeSlices.model_validate_json(payload)
        event = SlicesEncoded(
            model_digest=command.model_digest,
            slices=tuple(_encode(item, command=command, store=store) for item in command.items),
        )
        app.send_task(EVENT_TASK, args=[event.model_dump_json()], queue=EVENT_QUEUE)

    def add_checkpoint(payload: str) -> None:
        command = AddCheckpoint.model_validate_json(payload)
        _send(connection, command, _added(command, store=store))

    def tell(event: LearningEvent) -> None:
        app.send_task(LEARNING_EVENT_TASK, args=[event.model_dump_json()], queue=EVENT_QUEUE)

    def fine_tune(payload: str) -> None:
        command = FineTune.model_validate_json(payload)
        stops = partial(connection.exists, artifacts.stop_key(command.run_id))
        for event in null_learning.fine_tuned(command, store=store, shall_stop=stops):
            tell(event)

    def evaluate(payload: str) -> None:
        for event in null_learning.evaluated(Evaluate.model_validate_json(payload), store=store):
            tell(event)

    def score_slices(payload: str) -> None:
        tell(null_learning.scored(ScoreSlices.model_validate_json(payload), store=store))

    app.task(segment_slice, name=SegmentSlice.task, shared=False)
    app.task(encode_slices, name=EncodeSlices.task, shared=False)
    app.task(add_checkpoint, name=AddCheckpoint.task, shared=False)
    app.task(fine_tune, name=FineTune.task, shared=False)
    app.task(evaluate, name=Evaluate.task, shared=False)
    app.task(score_slices, name=ScoreSlices.task, shared=False)
    return app


def _added(command: AddCheckpoint, *, store: Store) -> Reply:
    """Every file is a checkpoint, but an empty one; nothing is shipped."""
    source = command.source
    match source:
        case FromSeed():
            content, origin = f"{source.variant} {source.seed}".encode(), f"seed {source.seed}"
        case FromPackage():
            return _not_added(command, "checkpoint_missing", "No trained model is shipped.")
        case FromUpload():
            key = artifacts.upload_key(source.upload_id)
            try:
                content, origin = store.get(key), "an upload"
            except ArtifactError:
                return _not_added(command, "checkpoint_missing", "The upload is not there.")
            store.remove(key)
            if not content:
                return _not_added(command, "checkpoint_refused", "The file is empty.")
    digest = hashlib.sha256(content).hexdigest()
    store.put(artifacts.checkpoint_key(digest), content)
    return CheckpointAdded(
        request_id=command.request_id,
        digest=digest,
        variant=source.variant if isinstance(source, FromSeed) else "vit_b",
        image_size=256,
        adapters=not (isinstance(source, FromUpload) and source.adapters == "drop"),
        preparation=1,
        trained=isinstance(source, FromUpload),
        origin=origin,
    )


def _not_added(command: AddCheckpoint, code: FailureCode, message: str) -> Failed:
    return Failed(request_id=command.request_id, code=code, message=message)


def _reply(command: SegmentSlice, *, store: Store, connection: redis.Redis) -> Reply:
    """`answer`, for slices that are prepared and logits that are still kept."""
    if not store.exists(artifacts.embedding_key(command.image, model_digest=command.model_digest)):
        return NotPrepared(request_id=command.request_id)
    refine = command.refine
    if isinstance(refine, PreviousLogits) and not connection.exists(
        artifacts.logits_key(refine.proposal_id)
    ):
        return Failed(
            request_id=command.request_id,
            code="refinement_expired",
            message="The last proposal is too old to be refined; refine its mask instead.",
        )
    return answer(command)


def _send(connection: redis.Redis, command: AwaitedCommand, reply: Reply) -> None:
    with connection.pipeline() as pipeline:
        if isinstance(reply, Segmented):
            logits = artifacts.pack_array(np.zeros((64, 64), np.float16))
            pipeline.set(artifacts.logits_key(reply.proposal_id), logits, ex=600)
        pipeline.rpush(command.reply_to, reply.model_dump_json())
        pipeline.expire(command.reply_to, 60)
        pipeline.execute()


def _encode(item: EncodeItem, *, command: EncodeSlices, store: Store) -> EncodedSlice:
    try:
        pixels = store.get_array(item.image.pixels_key)
        if artifacts.array_digest(pixels) != item.image.pixels_digest:
            return EncodedSlice(
                encoding_id=item.encoding_id,
                code="artifact_invalid",
                message="The slice's pixels are not those that were stored.",
            )
    except ArtifactError as error:
        return EncodedSlice(
            encoding_id=item.encoding_id, code="artifact_missing", message=f"{error}."
        )
    key = artifacts.embedding_key(item.image, model_digest=command.model_digest)
    store.put_array(key, np.zeros((256, 16, 16), np.float16))
    return EncodedSlice(encoding_id=item.encoding_id)


def _mask(command: SegmentSlice) -> Mask:
    """A box's inscribed ellipse, else one around the first click, else the mask to be refined.

    A negative click takes a small disc away.
    """
    height, width = command.image.height, command.image.width
    y, x = np.mgrid[:height, :width]
    positive = [point for point in command.points if point.positive]
    if command.box is not None:
        box = command.box
        centre = ((box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2)
        radii = ((box.x1 - box.x0) / 2, (box.y1 - box.y0) / 2)
        mask = _ellipse(x, y, centre=centre, radii=radii)
    elif positive:
        radii = (max(width / 8, 1.0), max(height / 8, 1.0))
        mask = _ellipse(x, y, centre=(positive[0].x, positive[0].y), radii=radii)
    else:
        mask = np.zeros((height, width), np.bool_)
    if isinstance(command.refine, EditedMask):
        mask = mask | masks.decode(command.refine.mask)
    for point in command.points:
        if not point.positive:
            small = (max(width / 32, 1.0), max(height / 32, 1.0))
            mask = mask & ~_ellipse(x, y, centre=(point.x, point.y), radii=small)
    return mask


def _ellipse(
    x: npt.NDArray[np.int_],
    y: npt.NDArray[np.int_],
    *,
    centre: tuple[float, float],
    radii: tuple[float, float],
) -> Mask:
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1
