"""Celery's entrances to what is uploaded as a model, and the sweep that no lost message escapes."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from celery import shared_task

from delineate import jobs
from delineate.registry.jobs import add_uploaded
from delineate.registry.models import ModelUpload

# Longer than the worker is waited for.
ADDING_TAKES_AT_MOST_S: Final = 900


@shared_task(name="delineate.add_model", time_limit=ADDING_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def add_model_task(upload_id: str) -> None:
    """Make a model of an uploaded file; safe to run twice."""
    add_uploaded(UUID(upload_id))


@shared_task(name="delineate.sweep_models", time_limit=60)  # type: ignore[untyped-decorator]
def sweep_models_task() -> None:
    """Send again what is owed and has been silent."""
    for upload in jobs.release_after_silence(ModelUpload):
        add_model_task.delay(str(upload.id))
