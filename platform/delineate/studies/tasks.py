"""Celery's entrances to ingest and encoding, and the sweep that no lost message escapes."""

from __future__ import annotations

import logging
from uuid import UUID

from celery import shared_task
from pydantic import ValidationError

from delineate import jobs
from delineate.studies import arrivals, encoding, ingest
from delineate.studies.models import Upload, WayIn
from mlworker.contract.messages import EVENT_TASK, event_adapter

logger = logging.getLogger(__name__)

# One file is at most 1 GiB and an upload 20,000 files; a job that outlives this is taken over.
INGEST_TAKES_AT_MOST_S = 3600


@shared_task(name="delineate.ingest_upload", time_limit=INGEST_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def ingest_upload_task(upload_id: str) -> None:
    """Ingest an upload; safe to run twice."""
    ingest.ingest(UUID(upload_id))


@shared_task(name=EVENT_TASK, time_limit=60)  # type: ignore[untyped-decorator]
def receive_worker_event_task(payload: str) -> None:
    """Take note of what the worker has done; safe to run twice."""
    try:
        event = event_adapter.validate_json(payload)
    except ValidationError as error:
        logger.error("An event that is not of the contract was dropped: %s", error)
        return
    encoding.receive(event)


@shared_task(name="delineate.sweep_jobs", time_limit=60)  # type: ignore[untyped-decorator]
def sweep_jobs_task() -> None:
    """Settle what its senders left behind, and send again what is owed and has been silent."""
    for way_in in (WayIn.DIMSE, WayIn.FOLDER):
        for upload_id in arrivals.settle(way_in):
            ingest_upload_task.delay(str(upload_id))
    for upload in jobs.release_after_silence(Upload):
        ingest_upload_task.delay(str(upload.id))
    encoding.sweep()
