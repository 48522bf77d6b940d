"""Tasks for series that have none: one per series."""

from __future__ import annotations

from typing import Final

from delineate import live
from delineate.annotation.models import Task
from delineate.studies.models import Series

AT_ONCE: Final = 500


def open_missing() -> int:
    """Open the tasks that are missing; how many."""
    missing = Series.objects.filter(task__isnull=True).select_related("study")[:AT_ONCE]
    return sum(open_for(series)[1] for series in missing)


def open_for(series: Series) -> tuple[Task, bool]:
    """The task of a series, and whether it was missing."""
    task, was_missing = Task.objects.get_or_create(series=series)
    if was_missing:
        live.tell(series.study.project_id, "task", id=task.id, state=str(task.state))
    return task, was_missing
