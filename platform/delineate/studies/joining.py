"""Stored frames become rows: a series is made, or grows by what came later.

Senders deliver a series image by image, and what comes in one upload need not be all of it. Until
somebody works on it a series takes more images, and is divided into volumes and put in order anew
with all that is there. What may show a name holds its volume, also one that was released: nobody
has looked at what joins. Runs in the transaction of its caller, who holds the project.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from django.utils import timezone
from pydantic import TypeAdapter

from delineate.studies import burned_in, geometry
from delineate.studies.archive import Entry, Refused
from delineate.studies.burned_in import Reason
from delineate.studies.geometry import Oddity, Placed
from delineate.studies.models import Instance, Quarantine, Series, Slice, Study
from delineate.studies.pixels import Values
from delineate.studies.reading import End
from delineate.studies.volumes import NiftiPlace

WINDOW_PERCENTILES: Final = (0.5, 99.5)
_PLACED: Final = TypeAdapter(Placed)


@dataclass(frozen=True)
class StoredFrame:
    """A decoded frame that lies in the object store."""

    slice_id: uuid.UUID
    number: int
    key: str
    digest: str
    placed: Placed
    values: Values
    # Some of its pixels in modality units, for the percentiles that stand in for a missing window.
    sample: np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class StoredInstance:
    """An object whose frames are stored, and its header."""

    entry: Entry
    sop_uid: str
    end: End
    frames: tuple[StoredFrame, ...]
    place: NiftiPlace | None

    @property
    def digests(self) -> list[str]:
        """Of its frames, in order."""
        return [frame.digest for frame in self.frames]


@dataclass(frozen=True)
class _Facts:
    """What a frame's object says of its series."""

    number: int
    modality: str
    frame_of_reference_uid: str
    window: tuple[float, float] | None  # centre, width
    held_because: Reason | None


@dataclass(frozen=True)
class _Frame:
    """One that is there already, or one that joins and whose ``row`` is not saved yet."""

    row: Slice
    placed: Placed
    facts: _Facts
    joins: tuple[StoredInstance, StoredFrame] | None


def join_series(study: Study, uid: str, stored: Sequence[StoredInstance]) -> list[Slice]:
    """Make the rows of a series' new images; the new slices.

    Raises Refused ``series_exists`` when the series takes no more.
    """
    there = list(study.series.select_for_update().filter(series_uid=uid))
    if any(series.in_work for series in there):
        raise Refused(
            "series_exists",
            "Its series is in the project already and work on it has begun: it takes no more.",
        )
    frames = [*_there(there), *_joining(stored)]
    by_number = {series.volume: series for series in there}
    volumes = geometry.volumes([frame.placed for frame in frames])
    for number, volume in enumerate(volumes, start=1):
        members = [frames[index] for index in volume.frames]
        series = by_number.pop(number, None) or Series(
            id=uuid.uuid5(study.id, uid if number == 1 else f"{uid}/{number}"),
            study=study,
            series_uid=uid,
            volume=number,
        )
        _describe(series, members, volume)
        _fill(series, members)
    Instance.objects.filter(series__in=there, slices__isnull=True).delete()
    # Two that what came later has made one.
    for left in by_number.values():
        left.delete()
    return [frame.row for frame in frames if frame.joins is not None]


def begin_work(series_id: uuid.UUID) -> None:
    """Let a series take no more images; in the transaction that puts the first work into it."""
    Series.objects.filter(id=series_id, in_work=False).update(in_work=True)


def _there(series: list[Series]) -> list[_Frame]:
    slices = Slice.objects.filter(series__in=series).select_related("series", "instance")
    return [
        _Frame(
            row,
            _PLACED.validate_python(row.placed),
            _Facts(
                number=row.series.number,
                modality=row.series.modality,
                frame_of_reference_uid=row.series.frame_of_reference_uid,
                window=_window_of(row.series),
                held_because=_reason_of(row.series),
            ),
            joins=None,
        )
        for row in slices.defer("instance__header")
    ]


def _window_of(series: Series) -> tuple[float, float] | None:
    if series.window_centre is None or series.window_width is None:
        return None
    return series.window_centre, series.window_width


def _reason_of(series: Series) -> Reason | None:
    return Reason(series.held_because) if series.quarantine == Quarantine.HELD else None


def _joining(stored: Sequence[StoredInstance]) -> list[_Frame]:
    return [
        _Frame(
            Slice(
                id=frame.slice_id,
                frame_number=frame.number,
                pixels_key=frame.key,
                pixels_digest=frame.digest,
                slope=frame.values.slope,
                intercept=frame.values.intercept,
                inverted=instance.end.is_inverted,
                placed=_PLACED.dump_python(frame.placed, mode="json"),
            ),
            frame.placed,
            _Facts(
                number=instance.end.series_number,
                modality=instance.end.modality[:16],
                frame_of_reference_uid=instance.end.frame_of_reference_uid,
                window=frame.values.window,
                held_because=instance.end.held_because,
            ),
            joins=(instance, frame),
        )
        for instance in stored
        for frame in instance.frames
    ]


def _describe(series: Series, members: list[_Frame], volume: geometry.Volume) -> None:
    first = members[0]
    series.number, series.modality = first.facts.number, first.facts.modality
    series.frame_of_reference_uid = first.facts.frame_of_reference_uid
    series.rows, series.columns = first.placed.shape[:2]
    series.is_color = len(first.placed.shape) == 3
    series.row_spacing_mm, series.column_spacing_mm = first.placed.spacing_mm or (None, None)
    series.orientation = _as_list(first.placed.orientation)
    series.slice_spacing_mm = volume.slice_spacing_mm
    series.oddities = [str(oddity) for oddity in volume.oddities]
    series.nifti_place = _nifti_place(members, volume)
    series.window_centre, series.window_width = (
        (None, None) if series.is_color else _window(members)
    )
    series.grew_at = timezone.now()
    _hold(series, burned_in.most_telling(member.facts.held_because for member in members))
    series.save()


def _hold(series: Series, reason: Reason | None) -> None:
    if reason is not None:
        series.quarantine, series.held_because = Quarantine.HELD, reason
        series.released_by = series.released_at = None
    elif series.quarantine == Quarantine.HELD:  # what was held lies in another volume now
        series.quarantine, series.held_because = Quarantine.NONE, ""


def _fill(series: Series, members: list[_Frame]) -> None:
    """Put a series' frames into it, in order."""
    instances = {i.sop_instance_uid: i for i in series.instances.defer("header")}
    missing: dict[str, Instance] = {}
    for frame in members:
        uid = frame.placed.number[1]
        if uid not in instances and uid not in missing:
            missing[uid] = _instance(series, frame)
    Instance.objects.bulk_create(missing.values())
    instances |= missing
    new: list[Slice] = []
    moved: list[Slice] = []
    for index, frame in enumerate(members):
        row = frame.row
        place = (series.id, index, instances[frame.placed.number[1]].id)
        if (row.series_id, row.index, row.instance_id) != place:
            row.series_id, row.index, row.instance_id = place
            (moved if frame.joins is None else new).append(row)
    Slice.objects.bulk_create(new)
    Slice.objects.bulk_update(moved, ["series", "index", "instance"])


def _instance(series: Series, frame: _Frame) -> Instance:
    if frame.joins is None:  # it lay in another volume so far
        there = frame.row.instance
        return Instance(
            series=series,
            sop_instance_uid=there.sop_instance_uid,
            sop_class_uid=there.sop_class_uid,
            number_of_frames=there.number_of_frames,
            header=there.header,
        )
    stored, _ = frame.joins
    return Instance(
        series=series,
        sop_instance_uid=stored.sop_uid,
        sop_class_uid=stored.end.sop_class_uid,
        number_of_frames=len(stored.frames),
        header=stored.end.header,
    )


def _nifti_place(members: list[_Frame], volume: geometry.Volume) -> dict[str, Any] | None:
    """Where its file said that it lies: of a volume that came as a NIfTI, whole."""
    joining = [frame.joins for frame in members if frame.joins is not None]
    stored = {instance.sop_uid: instance for instance, _ in joining}
    if len(joining) < len(members) or len(stored) > 1 or Oddity.REPEATED in volume.oddities:
        return None
    place = next(iter(stored.values())).place
    return None if place is None else place.model_dump(mode="json")


def _window(members: list[_Frame]) -> tuple[float, float]:
    """What the series had, else its first VOI window, else one over nearly all its values.

    (centre, width). What it had stays: its slices may have been encoded with it.
    """
    for frame in sorted(members, key=lambda frame: frame.joins is not None):
        if frame.facts.window is not None:
            return frame.facts.window
    values = np.concatenate([frame.joins[1].sample for frame in members if frame.joins])
    low, high = (float(value) for value in np.percentile(values, WINDOW_PERCENTILES))
    return (low + high) / 2, max(high - low, 1.0)


def _as_list(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)
