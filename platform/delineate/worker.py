"""The only door to the worker: send a command, or call one and await its reply.

A command that is sent is answered by an event some day; its job's row remembers that it is owed. A
command that is called is answered on a Redis list of this process: one reader per event loop hands
replies to futures by request id, so a call costs neither a thread nor a connection of its own.
Publishing happens off the event loop, in one thread with short time-outs: when Redis is away a call
is refused at once, or within two seconds when it hangs, and nothing waits behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
from celery import Celery
from django.conf import settings
from django.db import transaction
from django.db.models import Model, QuerySet
from kombu.exceptions import OperationalError
from pydantic import ValidationError

from delineate.errors import Unavailable
from mlworker.contract import broker
from mlworker.contract.artifacts import stop_key
from mlworker.contract.messages import AwaitedCommand, Command, Reply, reply_adapter

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=Model)

PUBLISH_PATIENCE_S: Final = 1.0
READ_BLOCK_S: Final = 5  # how long one blocking read waits before it is repeated
READ_PAUSE_S: Final = 0.5  # after Redis was away
STOP_KEPT_S: Final = 24 * 3600  # longer than a worker is away that may still find it

# Not the current application: the server's own tasks go through the server's own.
_producer = Celery("delineate-producer", set_as_current=False)
_producer.conf.update(
    broker_url=settings.ENVIRONMENT.redis_url,
    # kombu would knock at a closed port a second time, two seconds later.
    broker_transport_options=broker.transport_options(socket_timeout_s=PUBLISH_PATIENCE_S)
    | {"max_retries": 0},
    broker_connection_timeout=PUBLISH_PATIENCE_S,
    task_serializer="json",
    task_ignore_result=True,
    task_publish_retry=False,
)
# One thread: a second could overtake the first, and a broker that hangs holds up one, not many.
_publisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publisher")


def send(command: Command, *, priority: int = broker.PRIORITY_LATER) -> None:
    """Send a command once the transaction is committed; never raises, the sweep sends again."""
    transaction.on_commit(partial(_publish_or_log, command, priority=priority))


async def call(kind: type[AwaitedCommand], *, timeout_s: float, **fields: Any) -> Reply:
    """Send a command of ``kind`` with ``fields`` and await its reply.

    Raises Unavailable: ``broker_unavailable`` when it could not be sent, ``worker_timeout`` when
    nothing answered in time.
    """
    replies = _Replies.of_this_loop()
    request_id, sent_at = str(uuid.uuid4()), time.time()
    command = kind(
        request_id=request_id,
        reply_to=replies.list_key,
        sent_at=sent_at,
        expires_at=sent_at + timeout_s,
        **fields,
    )
    with replies.expect(request_id) as reply:
        try:
            await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(
                    _publisher, partial(_publish, command, priority=broker.PRIORITY_NOW)
                ),
                timeout=2 * PUBLISH_PATIENCE_S,
            )
        except (OperationalError, redis.RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                "The message broker is away for the moment; try again.", code="broker_unavailable"
            ) from error
        try:
            return await asyncio.wait_for(reply, timeout=timeout_s)
        except TimeoutError as error:
            raise Unavailable(
                "The model did not answer in time; try again.", code="worker_timeout"
            ) from error


def call_blocking(kind: type[AwaitedCommand], *, timeout_s: float, **fields: Any) -> Reply:
    """``call`` for the command line, where nothing else waits; raises as it does."""
    return asyncio.run(_call_and_close(kind, timeout_s=timeout_s, fields=fields))


async def _call_and_close(
    kind: type[AwaitedCommand], *, timeout_s: float, fields: dict[str, Any]
) -> Reply:
    try:
        return await call(kind, timeout_s=timeout_s, **fields)
    finally:
        await _Replies.of_this_loop().close()


def ask_to_stop(run_id: str) -> None:
    """Let a run of the worker's stop when it looks next; raises Unavailable."""
    try:
        with _client() as client:
            client.set(stop_key(run_id), 1, ex=STOP_KEPT_S)
    except (redis.RedisError, OSError) as error:
        raise Unavailable(
            "The run cannot be told to stop now; try again.", code="broker_unavailable"
        ) from error


def seen_at(queue: str) -> datetime | None:
    """When a worker of ``queue`` last said that it is alive; None when nobody knows of one."""
    try:
        with _client() as client:
            beat = client.get(f"heartbeat:{queue}")
    except (redis.RedisError, OSError) as error:
        logger.warning("Nobody can say whether a worker is alive: %s", error)
        return None
    return datetime.fromtimestamp(float(beat), UTC) if isinstance(beat, bytes) else None


def unseen(sent: QuerySet[ModelT], *, queue: str) -> QuerySet[ModelT]:
    """Of jobs that were sent, those that ``queue``'s worker cannot have seen: they lie in it.

    By their ``heartbeat_at``; all of them where nobody knows of a worker.
    """
    alive_at = seen_at(queue)
    return sent if alive_at is None else sent.filter(heartbeat_at__gt=alive_at)


def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.ENVIRONMENT.redis_url,
        socket_connect_timeout=PUBLISH_PATIENCE_S,
        socket_timeout=PUBLISH_PATIENCE_S,
    )


def _publish_or_log(command: Command, *, priority: int) -> None:
    try:
        _publish(command, priority=priority)
    except (OperationalError, redis.RedisError, OSError) as error:
        logger.warning("%s could not be sent, the sweep will: %s", command.task, error)


def _publish(command: Command, *, priority: int) -> None:
    _producer.send_task(
        command.task,
        args=[command.model_dump_json()],
        queue=command.queue,
        priority=priority,
        retry=False,
        argsrepr="(…)",  # else every message carries its arguments twice
        expires=max(1.0, command.expires_at - time.time())
        if isinstance(command, AwaitedCommand)
        else None,
    )


class _Replies:
    """The replies of one event loop: a Redis list, its reader, and who waits for what."""

    _by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Replies] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self) -> None:
        self.list_key = f"replies:{uuid.uuid4()}"
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._redis = redis.asyncio.Redis.from_url(
            settings.ENVIRONMENT.redis_url,
            socket_connect_timeout=PUBLISH_PATIENCE_S,
            socket_timeout=READ_BLOCK_S + 2,
        )
        self._reader = asyncio.create_task(self._read(), name="worker replies")

    @classmethod
    def of_this_loop(cls) -> _Replies:
        """The running loop's, made at its first call."""
        loop = asyncio.get_running_loop()
        if loop not in cls._by_loop:
            cls._by_loop[loop] = cls()
        return cls._by_loop[loop]

    @contextlib.contextmanager
    def expect(self, request_id: str) -> Any:
        """A future for the reply to ``request_id``; a reply that comes later is dropped."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            yield future
        finally:
            del self._waiting[request_id]

    async def close(self) -> None:
        """Stop reading."""
        # Again and again: the Redis client loses a cancellation that meets the end of a read.
        while not self._reader.done():
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=0.05)
        await self._redis.aclose()

    async def _read(self) -> None:
        while True:
            try:
                popped = await self._redis.blpop([self.list_key], timeout=READ_BLOCK_S)
            except (redis.RedisError, OSError) as error:
                logger.warning("Replies cannot be read for the moment: %s", error)
                await asyncio.sleep(READ_PAUSE_S)
                continue
            if popped is not None:
                self._hand_over(popped[1])

    def _hand_over(self, payload: bytes | str) -> None:
        try:
            reply = reply_adapter.validate_json(payload)
        except ValidationError as error:
            logger.error("A reply that is not of the contract was dropped: %s", error)
            return
        future = self._waiting.get(reply.request_id)
        if future is not None and not future.done():
            future.set_result(reply)
