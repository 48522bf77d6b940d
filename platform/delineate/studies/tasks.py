"""Celery's entrances to ingest and encoding, and the sweep that no lost message escapes."""

from __future__ import annotations

import logging
from uuid import UUID

from celery import shared_task
from pydantic import ValidationError

from delineate import jobs
from delineate.studies import arrivals, black_out, encoding, erasure, expiry, ingest
from delineate.studies.models import BlackOut, Erasure, Upload, WayIn
from mlworker.contract.messages import EVENT_TASK, event_adapter

logger = logging.getLogger(__name__)

# One file is at most 1 GiB and an upload 32 GiB; a job that outlives this is taken over.
INGEST_TAKES_AT_MOST_S = 3600
ERASURE_TAKES_AT_MOST_S = 3600
# 10,000 frames of a large clip; one that outlives this is begun anew.
BLACK_OUT_TAKES_AT_MOST_S = 3600


@shared_task(name="delineate.ingest_upload", time_limit=INGEST_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def ingest_upload_task(upload_id: str) -> None:
    """Ingest an upload; safe to run twice."""
    ingest.ingest(UUID(upload_id))


@shared_task(name="delineate.erase_subject", time_limit=ERASURE_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def erase_subject_task(erasure_id: str) -> None:
    """Erase a subject; safe to run twice."""
    erasure.erase(UUID(erasure_id))


@shared_task(name="delineate.black_out", time_limit=BLACK_OUT_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def black_out_task(black_out_id: str) -> None:
    """Black boxes out of a series; safe to run twice."""
    black_out.run(UUID(black_out_id))


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
    for owed in jobs.release_after_silence(Erasure):
        erase_subject_task.delay(str(owed.id))
    for black in jobs.release_after_silence(BlackOut):
        black_out_task.delay(str(black.id))
    expiry.end_forgotten_transfers()
    encoding.sweep()


@shared_task(name="delineate.honour_tombstones", time_limit=600)  # type: ignore[untyped-decorator]
def honour_tombstones_task() -> None:
    """Erase again what a restore has brought back."""
    for owed in erasure.honour():
        erase_subject_task.delay(str(owed.id))
