"""Celery's entrance to opening tasks."""

from __future__ import annotations

from celery import shared_task

from delineate.annotation import jobs


@shared_task(name="delineate.open_missing_tasks", time_limit=60)  # type: ignore[untyped-decorator]
def open_missing_tasks_task() -> None:
    """Open a task for every series that has none; safe to run twice."""
    jobs.open_missing()
