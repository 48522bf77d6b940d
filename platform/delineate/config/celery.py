"""The server's Celery application: queue ``server`` and the beat schedule."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging

from mlworker.contract import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")

from delineate.config.env import Environment

app = Celery("delineate")
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
        "open-missing-tasks": {"task": "delineate.open_missing_tasks", "schedule": 30.0},
    },
)
app.autodiscover_tasks(
    ["delineate.studies", "delineate.annotation", "delineate.exports"], related_name="tasks"
)


@setup_logging.connect
def _keep_djangos_logging(**_: object) -> None:
    """Celery would replace the root logger's handlers; Django's settings have set them."""
