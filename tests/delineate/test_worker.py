"""The door to the worker, on a real broker; behind it a worker without a model, or nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from celery import Celery
from django.db import transaction

from delineate import worker
from delineate.errors import Unavailable
from mlworker.contract.messages import (
    AddCheckpoint,
    CheckpointAdded,
    EncodeItem,
    EncodeSlices,
    FromSeed,
    NotPrepared,
    Point,
    Reply,
    SegmentSlice,
    SliceImage,
)
from tests import null_worker
from tests.waiting import until

IMAGE = SliceImage(pixels_key="none", pixels_digest="a" * 64, height=8, width=8)
PROMPT: dict[str, Any] = {
    "model_digest": "b" * 64,
    "image": IMAGE,
    "points": (Point(x=1, y=1, positive=True),),
}
ENCODE = EncodeSlices(model_digest="b" * 64, items=(EncodeItem(encoding_id="0" * 32, image=IMAGE),))


def seeded(seed: int) -> FromSeed:
    """Where a model comes from that a call asks for."""
    return FromSeed(variant="vit_t", seed=seed)


@pytest.fixture
def null(services, broker) -> Iterator[None]:
    """Somebody behind the door."""
    with null_worker.running(services.redis_url, services.storage_url):
        yield


@pytest.fixture(autouse=True)
async def _close_door() -> AsyncIterator[None]:
    yield
    await worker._Replies.of_this_loop().close()


async def test_many_calls_at_once_each_get_their_own_reply(null: None) -> None:
    replies = await asyncio.gather(
        *(worker.call(AddCheckpoint, timeout_s=30, source=seeded(seed)) for seed in range(20))
    )

    assert all(isinstance(reply, CheckpointAdded) for reply in replies)
    assert len({reply.request_id for reply in replies}) == 20


async def test_a_slice_that_is_not_prepared_is_a_reply(null: None) -> None:
    reply = await worker.call(SegmentSlice, timeout_s=30, **PROMPT)

    assert isinstance(reply, NotPrepared)


async def test_nobody_behind_the_door_is_a_refusal_in_time(broker: redis.Redis) -> None:
    with pytest.raises(Unavailable) as refusal:
        await worker.call(SegmentSlice, timeout_s=0.3, **PROMPT)

    assert refusal.value.code == "worker_timeout"


async def test_an_answer_that_comes_too_late_leaves_nothing_behind(
    services, broker: redis.Redis
) -> None:
    with pytest.raises(Unavailable):
        await worker.call(AddCheckpoint, timeout_s=0.3, source=seeded(1))
    assert broker.llen("train") == 1

    with null_worker.running(services.redis_url, services.storage_url):
        await until(lambda: broker.llen("train") == 0)
        # It still answers a call that is in time, after the late one.
        assert await worker.call(AddCheckpoint, timeout_s=30, source=seeded(2))

    left = list(broker.scan_iter("replies:*"))
    assert left == []


def _use_broker_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the door send to another broker."""
    other = Celery("away", set_as_current=False)
    other.conf.update(worker._producer.conf)
    other.conf.broker_url = f"redis://127.0.0.1:{port}/0"
    monkeypatch.setattr(worker, "_producer", other)


@pytest.fixture(params=["closed", "silent"])
def away(request, services, monkeypatch) -> Iterator[None]:
    """A broker that is dead (nobody listens at its port), or one that takes calls and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        _use_broker_at(9 if request.param == "closed" else port, monkeypatch)
        yield


async def test_without_a_broker_calls_are_refused_while_the_loop_goes_on(away: None) -> None:
    rounds = 0

    async def go_round() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    going_round = asyncio.create_task(go_round())
    refusals = await asyncio.gather(
        # Their own time would be up much later.
        *(worker.call(SegmentSlice, timeout_s=600, **PROMPT) for _ in range(3)),
        return_exceptions=True,
    )
    going_round.cancel()

    assert [getattr(each, "code", each) for each in refusals] == 3 * ["broker_unavailable"]
    assert rounds > 1


def test_without_a_broker_sending_does_not_raise(away: None) -> None:
    worker._publish_or_log(ENCODE, priority=0)


async def test_replies_that_nobody_waits_for_are_dropped(null: None, broker: redis.Redis) -> None:
    replies = worker._Replies.of_this_loop()
    stray = CheckpointAdded(
        request_id="0" * 32,
        digest="c" * 64,
        variant="vit_t",
        image_size=256,
        adapters=True,
        preparation=1,
        trained=False,
        origin="seed 0",
    )
    broker.rpush(replies.list_key, stray.model_dump_json(), "no JSON", '{"kind": "surprise"}')

    reply = await worker.call(AddCheckpoint, timeout_s=30, source=seeded(4))

    assert isinstance(reply, CheckpointAdded)
    assert reply.request_id != stray.request_id
    assert not broker.exists(replies.list_key)


async def test_connections_that_are_cut_are_made_anew(null: None, broker: redis.Redis) -> None:
    assert await worker.call(AddCheckpoint, timeout_s=30, source=seeded(5))
    # Cut between its reply and its receipt, a worker ends, and the supervisor starts another; here
    # it is a thread that nobody starts again.
    await until(lambda: not broker.hlen("unacked"))
    broker.client_kill_filter(_type="normal", skipme=True)

    # The first may meet the cut; it is refused, and the next goes through.
    outcomes = [
        await _outcome(worker.call(AddCheckpoint, timeout_s=30, source=seeded(seed)))
        for seed in (6, 7)
    ]

    assert outcomes[0] in ("broker_unavailable", "answered")
    assert outcomes[1] == "answered"


async def _outcome(call: Awaitable[Reply]) -> str:
    try:
        await call
    except Unavailable as refusal:
        return refusal.code
    return "answered"


@pytest.mark.django_db(transaction=True)
def test_a_command_is_sent_when_its_transaction_is_committed_and_not_before(
    broker: redis.Redis,
) -> None:
    with transaction.atomic():
        worker.send(ENCODE)
        transaction.set_rollback(True)
    queues = list(broker.scan_iter("encode*"))
    assert queues == []

    with transaction.atomic():
        worker.send(ENCODE)
        assert list(broker.scan_iter("encode*")) == []

    assert len(list(broker.scan_iter("encode*"))) == 1


@pytest.mark.django_db(transaction=True)
async def test_a_call_without_a_loop_of_its_own_comes_back(null: None) -> None:
    reply = await sync_to_async(worker.call_blocking)(AddCheckpoint, timeout_s=30, source=seeded(3))

    assert isinstance(reply, CheckpointAdded)
