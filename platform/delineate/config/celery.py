"""The server's Celery application: queue ``server`` and the beat schedule."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery
from celery.signals import heartbeat_sent, setup_logging

from mlworker.contract import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")

from delineate.config.env import Environment

app = Celery("delineate")
# For every thread: without it `task.delay` in a request's thread goes to an application of Celery's
# own making, to a queue that nobody serves.
app.set_default()
app.conf.update(
    broker_url=Environment.read().redis_url,
    broker_transport_options=broker.transport_options(socket_timeout_s=30),
    broker_connection_retry_on_startup=True,
    task_default_queue="server",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    task_time_limit=3600,
    task_publish_retry=False,
    beat_schedule={
        "sweep-jobs": {"task": "delineate.sweep_jobs", "schedule": 5.0},
        "honour-tombstones": {"task": "delineate.honour_tombstones", "schedule": 60.0},
        "sweep-models": {"task": "delineate.sweep_models", "schedule": 5.0},
        "sweep-exports": {"task": "delineate.sweep_exports", "schedule": 5.0},
        "sweep-learning": {"task": "delineate.sweep_learning", "schedule": 5.0},
        "tidy-learning": {"task": "delineate.tidy_learning", "schedule": 60.0},
        "open-missing-tasks": {"task": "delineate.open_missing_tasks", "schedule": 3.0},
    },
)
app.autodiscover_tasks(
    [
        "delineate.registry",
        "delineate.studies",
        "delineate.annotation",
        "delineate.exports",
        "delineate.learning",
    ],
    related_name="tasks",
)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_djangos_logging(**_: object) -> None:
    """Celery would replace the root logger's handlers; Django's settings have set them."""


HEARTBEAT_FORGOTTEN_AFTER_S = 600
_heart = redis.Redis.from_url(app.conf.broker_url, socket_timeout=2, socket_connect_timeout=2)


@heartbeat_sent.connect  # type: ignore[untyped-decorator]
def _say_alive(**_: object) -> None:
    """From the worker's own loop, every two seconds: a loop that hangs falls silent."""
    try:
        _heart.set("heartbeat:server", time.time(), ex=HEARTBEAT_FORGOTTEN_AFTER_S)
    except redis.RedisError:
        return  # the supervisor cannot read it then either, and holds nothing against us
