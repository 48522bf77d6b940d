"""Acts on series in quarantine: let go as they are, or with boxes blacked out of their pixels."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from django.db import transaction
from django.db.models import Count
from django.utils import timezone
from kombu.exceptions import OperationalError

from delineate import live
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid, NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies import black_out, encoding
from delineate.studies.black_boxes import BlackBox
from delineate.studies.models import BlackOut, Quarantine, Series, Slice
from delineate.studies.tasks import black_out_task

logger = logging.getLogger(__name__)

BOXES_AT_MOST: Final = 200


def release(series: Series, *, slices: int, by: User) -> Series:
    """Let everybody open a series of which somebody has looked at so many slices.

    Raises Conflict ``not_held``, ``being_blacked_out``, ``series_grew``.
    """
    require(by, Action.RELEASE, series.study.project)
    with transaction.atomic():
        held = _lock_held(series, slices=slices)
        _let_go([held], project=held.study.project, by=by)
    return held


def release_several(project: Project, *, seen: Mapping[uuid.UUID, int], by: User) -> int:
    """Let go what of these series is still held and still has so many slices; how many.

    They are named, so that nothing is let go that came after somebody looked. One whose boxes are
    being blacked out is left to that. Raises NotFound.
    """
    require(by, Action.RELEASE, project)
    with transaction.atomic():
        named = (
            Series.objects.select_for_update(of=("self",), no_key=True)
            .select_related("study")
            .filter(study__project=project, id__in=seen)
            .order_by("id")
        )
        if len(named) < len(seen):
            raise NotFound("There is no such series, or it is not one of this project's.")
        counts = _slices_by_series(seen)
        grown = {series_id for series_id in seen if seen[series_id] != counts[series_id]}
        left_alone = grown | _under_way(seen)
        held = [
            each
            for each in named
            if each.quarantine == Quarantine.HELD and each.id not in left_alone
        ]
        _let_go(held, project=project, by=by)
    return len(held)


def request_black_out(
    series: Series, *, boxes: Sequence[BlackBox], slices: int, by: User
) -> BlackOut:
    """Owe the black-out of boxes, drawn on so many slices, after which the series is let go.

    Raises Invalid ``no_boxes``, ``too_many_boxes``, ``box_outside``; Conflict ``not_held``,
    ``being_blacked_out``, ``series_grew``.
    """
    require(by, Action.RELEASE, series.study.project)
    with transaction.atomic():
        held = _lock_held(series, slices=slices)
        _check(boxes, series=held, slices=slices)
        touched = [index for index in range(slices) if any(box.is_on(index) for box in boxes)]
        owed = BlackOut.objects.create(
            series=held,
            by=by,
            boxes=[box.model_dump(mode="json") for box in boxes],
            grew_at=held.grew_at,
            slices_total=len(touched),
        )
        black_out.tell(owed, project_id=held.study.project_id)
        transaction.on_commit(partial(_hurry, owed.id))
    return owed


def _lock_held(series: Series, *, slices: int) -> Series:
    locked = (
        Series.objects.select_for_update(of=("self",), no_key=True)
        .select_related("study__project")
        .filter(id=series.id)
        .first()
    )
    if locked is None:
        raise NotFound("The series has been deleted with its study.")
    if locked.quarantine != Quarantine.HELD:
        raise Conflict("The series is not in quarantine any more.", code="not_held")
    if _under_way([locked.id]):
        raise Conflict(
            "Boxes are being blacked out of this series; it is let go after that.",
            code="being_blacked_out",
        )
    if _slices_by_series([locked.id])[locked.id] != slices:
        raise black_out.series_grew()
    return locked


def _slices_by_series(series_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    counted = Series.objects.filter(id__in=series_ids).annotate(slice_count=Count("slices"))
    return dict(counted.order_by().values_list("id", "slice_count"))


def _under_way(series_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    owed = BlackOut.objects.filter(
        series__in=series_ids, state__in=[JobState.PENDING, JobState.RUNNING]
    )
    return set(owed.values_list("series_id", flat=True))


def _let_go(held: Sequence[Series], *, project: Project, by: User) -> None:
    for series in held:
        series.quarantine = Quarantine.RELEASED
        series.released_by, series.released_at = by, timezone.now()
        series.save(update_fields=["quarantine", "released_by", "released_at"])
        audit.series_released(project.id, series.id, by=by, reason=series.held_because)
    if held:
        slices = Slice.objects.filter(series__in=held).order_by("series", "index")
        encoding.prepare(held[0].study.project, list(slices.values_list("id", flat=True)))
        live.tell(project.id, "studies")


def _check(boxes: Sequence[BlackBox], *, series: Series, slices: int) -> None:
    if not boxes:
        raise Invalid("Draw at least one box, or release the series as it is.", code="no_boxes")
    if len(boxes) > BOXES_AT_MOST:
        raise Invalid(f"At most {BOXES_AT_MOST} boxes at a time.", code="too_many_boxes")
    for number, box in enumerate(boxes, start=1):
        if not box.fits(rows=series.rows, columns=series.columns, slices=slices):
            raise Invalid(
                f"Box {number} has no inside, or does not lie within the series' "
                f"{series.columns} x {series.rows} pixels and {slices} slices.",
                code="box_outside",
            )


def _hurry(black_out_id: uuid.UUID) -> None:
    try:
        black_out_task.delay(str(black_out_id))
    except (OperationalError, OSError) as error:
        logger.warning("Black-out %s waits for the sweep: %s", black_out_id, error)
