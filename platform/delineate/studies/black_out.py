"""Boxes are blacked out of a held series: new objects, new digests, and the old bytes are gone.

    slices' new objects ──> one transaction: rows point at them ──> old objects deleted ──> let go

Safe to run again after being killed anywhere: where the new objects lie follows from the job, what
is to be deleted stands in its row, and the series is held until nothing is left of what was there.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Final

from django.db import transaction
from django.utils import timezone

from delineate import jobs, live, storage
from delineate.audit import log as audit
from delineate.errors import Conflict, DelineateError
from delineate.jobs import JobState
from delineate.studies import black_boxes, burned_in, encoding, lossless
from delineate.studies.black_boxes import COLOUR_BLACK, Array, BlackBox
from delineate.studies.models import BlackOut, Instance, Quarantine, Series, Slice
from delineate.studies.selectors import header_of
from mlworker.contract.artifacts import array_digest, pack_array, pixels_key, unpack_array

logger = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 500


@dataclass(frozen=True)
class _Written:
    """A slice's new object."""

    slice_id: uuid.UUID
    key: str
    digest: str


def run(black_out_id: uuid.UUID) -> None:
    """Run a black-out's job; returns quietly when it is gone, ended, or alive in other hands."""
    black_out = jobs.claim(BlackOut, black_out_id)
    if black_out is None:
        _clear_if_given_up(black_out_id)
        return
    series = Series.objects.select_related("study__project").filter(id=black_out.series_id).first()
    if series is None:
        return
    attempt = _Run(black_out, series)
    try:
        attempt.to_the_end()
    except jobs.TakenOver:
        logger.info("Black-out %s was taken over by another attempt", black_out_id)
    except DelineateError as refusal:
        logger.info("Black-out %s was refused: %s", black_out_id, refusal.code)
        told = partial(tell, black_out, project_id=series.study.project_id)
        jobs.refuse(black_out, refusal, tell=told)
    finally:
        attempt.take_back()


def _clear_if_given_up(black_out_id: uuid.UUID) -> None:
    """What shows a name goes also where the last attempt died before it went."""
    black_out = BlackOut.objects.filter(id=black_out_id, state=JobState.FAILED).first()
    if black_out is not None:
        _delete(black_out.replaced_keys or [])


class _Run:
    """One attempt at a black-out."""

    def __init__(self, black_out: BlackOut, series: Series) -> None:
        self._job = black_out
        self._series = series
        self._boxes = [BlackBox.model_validate(box) for box in black_out.boxes]
        self._written: list[_Written] = []
        self._pulse = jobs.Pulse(black_out, self._note_progress)

    def to_the_end(self) -> None:
        if self._job.replaced_keys is None:  # else an attempt before this one came that far
            self._write()
            self._point_at_what_was_written()
        _delete(self._job.replaced_keys or [])
        self._let_go()

    def take_back(self) -> None:
        """What nothing points at: the study was deleted meanwhile, or the job was refused."""
        job = BlackOut.objects.filter(id=self._job.id).first()
        if job is None or (job.state == JobState.FAILED and job.replaced_keys is None):
            _delete([written.key for written in self._written])

    def _write(self) -> None:
        slices = self._slices()
        bits = self._bits_by_instance()
        self._job.slices_total, self._job.slices_done = len(slices), 0
        for slice_ in slices:
            self._pulse.beat()
            stored = unpack_array(storage.get(slice_.pixels_key))
            black = self._black_of(slice_, stored, bits=bits[slice_.instance_id])
            covered = black_boxes.cover(stored, self._boxes, index=slice_.index, black=black)
            # Equal in every attempt, and nobody who knew the old one can tell it.
            name = uuid.uuid5(self._job.id, str(slice_.id))
            key = pixels_key(str(self._series.study_id), str(name))
            self._written.append(_Written(slice_.id, key, array_digest(covered)))
            storage.put(key, pack_array(covered))
            self._job.slices_done += 1

    def _slices(self) -> list[Slice]:
        """Those that a box lies on."""
        slices = self._series.slices.order_by("index")
        return [each for each in slices if any(box.is_on(each.index) for box in self._boxes)]

    def _bits_by_instance(self) -> dict[uuid.UUID, int]:
        """How many bits of a value are used; 0 where the header does not say."""
        return {
            instance.id: int(header_of(instance).get("BitsStored") or 0)
            for instance in self._series.instances.iterator(chunk_size=ROWS_AT_ONCE)
        }

    def _black_of(self, slice_: Slice, stored: Array, *, bits: int) -> int:
        series = self._series
        if series.window_centre is None or series.window_width is None:
            return COLOUR_BLACK
        return black_boxes.darkest(
            stored.dtype,
            bits=bits or stored.dtype.itemsize * 8,
            slope=slice_.slope,
            intercept=slice_.intercept,
            inverted=slice_.inverted,
            window=(series.window_centre, series.window_width),
        )

    def _point_at_what_was_written(self) -> None:
        with transaction.atomic():
            jobs.sign_of_life(self._job)
            series = self._lock()
            written = {each.slice_id: each for each in self._written}
            slices = list(series.slices.filter(id__in=written))
            replaced = [slice_.pixels_key for slice_ in slices]
            replaced += [lossless.key_of(slice_) for slice_ in slices]
            for slice_ in slices:
                slice_.sent_digest = slice_.digest_as_sent
                slice_.pixels_key = written[slice_.id].key
                slice_.pixels_digest = written[slice_.id].digest
            Slice.objects.bulk_update(
                slices, ["sent_digest", "pixels_key", "pixels_digest"], batch_size=ROWS_AT_ONCE
            )
            for instance in series.instances.iterator(chunk_size=ROWS_AT_ONCE):
                _say_cleaned(instance)
            # An embedding still tells of what it was made from.
            replaced += sorted(encoding.forget(Slice.objects.filter(id__in=written)))
            self._job.replaced_keys = replaced
            self._job.save(update_fields=["replaced_keys", "slices_total", "slices_done"])

    def _let_go(self) -> None:
        job = self._job
        with transaction.atomic():
            jobs.finish(job)
            series = self._lock()
            series.quarantine = Quarantine.BLACKED_OUT
            series.released_by, series.released_at = job.by, timezone.now()
            series.save(update_fields=["quarantine", "released_by", "released_at"])
            audit.series_blacked_out(
                series.study.project_id,
                series.id,
                by=job.by,
                reason=series.held_because,
                boxes=[_in_words(box) for box in self._boxes],
                slices=job.slices_total,
            )
            slice_ids = list(series.slices.values_list("id", flat=True))
            encoding.prepare(series.study.project, slice_ids)
            live.tell(series.study.project_id, "studies", id=series.study_id)
            self._tell()

    def _lock(self) -> Series:
        """The series, as when the boxes were drawn; Conflict ``not_held``, ``series_grew``."""
        series = (
            Series.objects.select_for_update(of=("self",), no_key=True)
            .select_related("study__project")
            .get(id=self._series.id)
        )
        if series.quarantine != Quarantine.HELD:
            raise Conflict("The series is not in quarantine any more.", code="not_held")
        if series.grew_at != self._job.grew_at:
            raise series_grew()
        return series

    def _note_progress(self) -> None:
        self._job.save(update_fields=["slices_total", "slices_done"])
        self._tell()

    def _tell(self) -> None:
        tell(self._job, project_id=self._series.study.project_id)


def series_grew() -> Conflict:
    """What joined has been looked at by nobody."""
    return Conflict(
        "Images were added to the series meanwhile; look at it once more.", code="series_grew"
    )


def tell(black_out: BlackOut, *, project_id: uuid.UUID) -> None:
    """Say how far it has come."""
    live.tell(
        project_id,
        "quarantine",
        id=black_out.series_id,
        state=str(black_out.state),
        slices_done=black_out.slices_done,
        slices_total=black_out.slices_total,
    )


def _say_cleaned(instance: Instance) -> None:
    header = header_of(instance)
    burned_in.say_cleaned(header)
    instance.header = header.to_json_dict()
    instance.save(update_fields=["header"])


def _in_words(box: BlackBox) -> str:
    """As the trail keeps it; slices are counted from 1, as on the page."""
    return f"{box.x0} {box.y0} {box.x1} {box.y1} on {box.first + 1}-{box.last + 1}"


def _delete(keys: list[str]) -> None:
    for key in keys:
        storage.delete(key)
