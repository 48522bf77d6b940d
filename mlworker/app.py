"""The worker's Celery application, its settings, its heartbeat.

One process serves one queue with ``--pool=solo`` (CUDA does not survive a fork). A solo worker
cannot be ended by Celery's time limits, so each process says in Redis that it is alive, and stops
saying so when a task has outlived its deadline; the supervisor ends what falls silent.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import redis
from celery import Celery
from celery.signals import worker_init, worker_ready
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlworker.contract import broker

logger = logging.getLogger(__name__)

BEAT_EVERY_S: Final = 2.0
BEAT_FORGOTTEN_AFTER_S: Final = 600  # the supervisor judges by the time it holds, not by absence
TASK_DEADLINE_S: Final = {"interactive": 20.0, "encode": 90.0, "train": 600.0}


class Settings(BaseSettings):
    """The worker's environment; nothing else reads it."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    redis_url: str = Field(validation_alias="REDIS_URL")
    storage_url: str = Field(validation_alias="STORAGE_URL")
    # Threads of one process; the supervisor sets them so that the processes do not fight.
    threads: int = Field(default=2, ge=1, validation_alias="OMP_NUM_THREADS")
    # Embeddings kept in memory by the interactive worker: 256 MiB hold 2,000 slices.
    embedding_cache_bytes: int = Field(
        default=256 * 1024**2, validation_alias="MLWORKER_EMBEDDING_CACHE_BYTES"
    )
    # Of the encoder's products; auto is the fastest that this machine has.
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", validation_alias="MLWORKER_PRECISION"
    )
    # An MLflow server that is told of fine-tunings; by MLflow's own name.
    mlflow_tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI")


settings = Settings()

# Not the current application of whoever imports this: the server shares tasks by that.
app = Celery("mlworker", include=["mlworker.tasks"], set_as_current=False)
app.conf.update(
    broker_url=settings.redis_url,
    broker_transport_options=broker.transport_options(socket_timeout_s=30),
    broker_connection_retry_on_startup=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    task_publish_retry=False,
    worker_hijack_root_logger=False,
)

# Short time-outs: an answer nobody can receive must not hold the worker.
connection = redis.Redis.from_url(
    settings.redis_url, socket_timeout=5, socket_connect_timeout=2, health_check_interval=30
)


class Heartbeat:
    """Says that this process is alive while the task it runs is within its deadline."""

    def __init__(self, queue: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = f"heartbeat:{queue}"
        self._deadline_s = TASK_DEADLINE_S.get(queue, 60.0)
        self._busy_since: float | None = None

    def start(self) -> None:
        """Begin, in a thread of its own: the main one is busy while a task runs."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    @contextmanager
    def during_task(self) -> Iterator[None]:
        """Hold the deadline against what runs inside."""
        self._busy_since = self._clock()
        try:
            yield
        finally:
            self._busy_since = None

    def is_alive(self) -> bool:
        """Whether this process is idle, or its task within its deadline."""
        since = self._busy_since
        return since is None or self._clock() - since < self._deadline_s

    def _beat(self) -> None:
        while True:
            if self.is_alive():
                try:
                    connection.set(self._key, time.time(), ex=BEAT_FORGOTTEN_AFTER_S)
                except redis.RedisError as error:
                    logger.warning("The heartbeat could not be written: %s", error)
            time.sleep(BEAT_EVERY_S)


def queue_of(argv: list[str]) -> str:
    """The queue this process was started for: ``celery … -Q interactive``."""
    return argv[argv.index("-Q") + 1] if "-Q" in argv else "interactive"


# Read by OpenMP when torch is loaded, which is later. Threads that encode or train sleep while they
# wait for each other: spinning ones would take the cores that clicks and the server need.
if queue_of(sys.argv) != "interactive":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

heartbeat = Heartbeat(queue_of(sys.argv))


@worker_init.connect  # type: ignore[untyped-decorator]
def _log_to_stderr(**_: Any) -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Two lines per click say nothing that the reply does not.
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _become_alive(**_: Any) -> None:
    # Only now: the tasks' module has been imported and warmed up, so the first click is fast.
    heartbeat.start()
