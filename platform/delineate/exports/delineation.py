"""A series with its accepted masks, as values: what writers write and verify compares with.

Numbers are for people: studies, series and slices count from 1. Lengths are in mm, coordinates are
the patient's as in DICOM (towards left, posterior, superior).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Final
from uuid import UUID

import numpy as np

from delineate.errors import Conflict
from delineate.studies.volumes import NiftiPlace
from mlworker.contract import masks
from mlworker.contract.artifacts import array_digest
from mlworker.contract.masks import Mask, RunLengths
from mlworker.contract.messages import Box, Point

Vector = tuple[float, float, float]

SLUG_LENGTH: Final = 40


class CannotBeWritten(Conflict):
    """A series that the format cannot express; the export is refused by this name."""


@dataclass(frozen=True)
class Slice:
    """One slice: a frame of a DICOM object."""

    number: int
    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int  # 1 … in its object
    position: Vector | None  # centre of the first pixel


@dataclass(frozen=True)
class Label:
    """What was delineated."""

    value: int  # 1 … 255
    name: str
    color: str  # "#rrggbb"

    @property
    def file_name(self) -> str:
        """Its name in files: "label-003-left-lung"; letters a-z, digits and dashes only."""
        ascii_name = unicodedata.normalize("NFKD", self.name).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower())[:SLUG_LENGTH].strip("-")
        return f"label-{self.value:03d}" + (f"-{slug}" if slug else "")


@dataclass(frozen=True)
class AcceptedMask:
    """The mask that counts for a slice and label, and how it came to be."""

    slice_number: int
    label_value: int
    runs: RunLengths
    revision_id: str
    revision: int  # 1 … for its slice and label
    by: str
    at: datetime
    points: tuple[Point, ...]
    box: Box | None
    model_digest: str  # empty: drawn by hand alone
    hand_drawn_share: float
    active_seconds: float

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the mask as an array (the contract's ``array_digest``)."""
        return array_digest(masks.decode(self.runs))


@dataclass(frozen=True)
class Review:
    """Who found the series' masks good."""

    by: str
    at: datetime


@dataclass(frozen=True)
class Patient:
    """Who the subject is, where a project keeps identities; empty what its images do not say."""

    number: str
    name: str
    birth_date: str  # YYYYMMDD


@dataclass(frozen=True)
class Delineation:
    """A series, its slices in order along the normal, its labels by value, its accepted masks."""

    study_id: UUID
    study_number: int
    series_number: int  # 1 … in its study
    study_uid: str
    series_uid: str
    subject: str  # pseudonym
    modality: str
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None  # between rows, between columns
    slice_thickness_mm: float | None
    orientation: tuple[float, ...] | None  # along a row, then along a column: unit vectors
    frame_of_reference_uid: str  # empty: the objects name none
    slices: tuple[Slice, ...]
    labels: tuple[Label, ...]  # those with at least one accepted mask
    masks: tuple[AcceptedMask, ...]
    review: Review | None
    model_names: Mapping[str, str]  # by digest
    nifti_place: NiftiPlace | None = None  # as it came, where it came as a NIfTI
    patient: Patient | None = None  # None: nobody here knows

    @property
    def title(self) -> str:
        """How a person finds the series."""
        return f"Study {self.study_number}, series {self.series_number}"

    @property
    def folder(self) -> str:
        """Where its files lie in an export."""
        return f"study-{self.study_number:04d}/series-{self.series_number:02d}"

    @property
    def has_place(self) -> bool:
        """Whether every slice's place in the patient is known."""
        return (
            self.orientation is not None
            and self.pixel_spacing_mm is not None
            and all(each.position is not None for each in self.slices)
        )

    def mask(self, slice_number: int, label_value: int) -> Mask:
        """The (rows, columns) mask; without foreground where none was accepted."""
        accepted = self._by_place.get((slice_number, label_value))
        if accepted is None:
            return np.zeros((self.rows, self.columns), dtype=np.bool_)
        return masks.decode(accepted.runs)

    def masks_of(self, label_value: int) -> list[AcceptedMask]:
        """The accepted masks of a label, by slice."""
        return [each for each in self.masks if each.label_value == label_value]

    def is_drawn(self, slice_number: int, label_value: int) -> bool:
        """Whether a mask was accepted there that has foreground."""
        accepted = self._by_place.get((slice_number, label_value))
        return accepted is not None and masks.area(accepted.runs) > 0

    @cached_property
    def _by_place(self) -> dict[tuple[int, int], AcceptedMask]:
        return {(each.slice_number, each.label_value): each for each in self.masks}


@dataclass(frozen=True)
class File:
    """A written file and what it says it holds."""

    name: str  # in the series' folder
    data: bytes
    labels: tuple[int, ...]  # values
    slices: tuple[int, ...]  # numbers, in the file's order

    def without_data(self) -> File:
        """What is remembered of it once it has been written: a volume can be large."""
        return replace(self, data=b"")
