"""Tasks for series that have none: one per series."""

from __future__ import annotations

from typing import Final

from delineate import live
from delineate.annotation.models import Task
from delineate.studies.models import Series
from delineate.studies.selectors import not_held, refuse_held

AT_ONCE: Final = 500


def open_missing() -> int:
    """Open the tasks that are missing; how many."""
    missing = Series.objects.filter(not_held(), task__isnull=True).select_related("study")
    return sum(open_for(series)[1] for series in missing[:AT_ONCE])


def open_for(series: Series) -> tuple[Task, bool]:
    """The task of a series, and whether it was missing; InQuarantine."""
    refuse_held(series)
    task, was_missing = Task.objects.get_or_create(series=series)
    if was_missing:
        live.tell(series.study.project_id, "task", id=task.id, state=str(task.state))
    return task, was_missing
