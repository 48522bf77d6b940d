"""Celery's entrances to exports, and the sweep that no lost message escapes."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from celery import shared_task

from delineate import jobs
from delineate.exports import build
from delineate.exports.models import Export

# Beyond any export that was tried; a job that outlives this is begun anew.
BUILD_TAKES_AT_MOST_S: Final = 3600


@shared_task(name="delineate.build_export", time_limit=BUILD_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def build_export_task(export_id: str) -> None:
    """Build an export; safe to run twice."""
    build.build(UUID(export_id))


@shared_task(name="delineate.sweep_exports", time_limit=60)  # type: ignore[untyped-decorator]
def sweep_exports_task() -> None:
    """Send again what is owed and has been silent; withdraw what may not be fetched any more."""
    for export in jobs.release_after_silence(Export):
        build_export_task.delay(str(export.id))
    build.withdraw_outdated()
