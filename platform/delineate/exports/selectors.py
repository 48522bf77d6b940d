"""Reads for exports: what there is to write, as values, and what its reader may know of."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from pydicom import Dataset

from delineate.accounts.models import User
from delineate.annotation import selectors as annotation
from delineate.annotation.models import MaskRevision, Task
from delineate.annotation.models import Review as ReviewRow
from delineate.annotation.transitions import State
from delineate.errors import NotFound
from delineate.exports.delineation import AcceptedMask, Delineation, Label, Patient, Review, Slice
from delineate.exports.models import Export
from delineate.projects.escrow import EscrowFile, unseal
from delineate.projects.models import Project
from delineate.projects.selectors import projects_of
from delineate.registry.models import ModelVersion
from delineate.studies.models import SERIES_ORDER, Series, Study
from delineate.studies.originals import Original, together
from delineate.studies.selectors import header_of, not_held
from delineate.studies.volumes import NiftiPlace
from mlworker.contract.masks import RunLengths
from mlworker.contract.messages import Box, Point


def export_for(user: User | AnonymousUser, export_id: UUID) -> Export:
    """The export, for members of its project; NotFound for everybody else."""
    export = (
        Export.objects.filter(id=export_id, project__in=projects_of(user))
        .select_related("project")
        .first()
    )
    if export is None:
        raise NotFound("There is no such export, or you are not a member of its project.")
    return export


def tasks_with_masks(project: Project, *, reviewed_only: bool) -> QuerySet[Task]:
    """The tasks whose masks an export holds, by study and series."""
    tasks = Task.objects.filter(
        Exists(MaskRevision.objects.filter(task=OuterRef("pk"))),
        not_held("series__"),
        series__study__project=project,
    )
    if reviewed_only:
        tasks = tasks.filter(state=State.ACCEPTED)
    return tasks.order_by("series__study__number", "series__number", "series__id")


def deleted_studies(exports: Iterable[Export]) -> set[UUID]:
    """Of the studies whose masks the exports hold, those that have been deleted since."""
    held = {study_id for export in exports for study_id in export.study_ids}
    return held - set(Study.objects.filter(id__in=held).values_list("id", flat=True))


def originals_in(export: Export, *, key: EscrowFile) -> dict[str, Original]:
    """Who the patients of an export's studies are, by our study UID; opened with the key."""
    found: dict[str, Original] = {}
    studies = Study.objects.filter(id__in=export.study_ids).order_by("number")
    for study in studies.prefetch_related("sealed_originals"):
        parts = [
            Original.model_validate_json(unseal(bytes(each.sealed), file=key))
            for each in study.sealed_originals.all()
        ]
        found[study.study_uid] = together(parts)
    return found


def delineation_of(task_id: UUID, *, among: QuerySet[Task]) -> Delineation | None:
    """The task's series and masks, as at one moment; None when it is no longer ``among`` them."""
    with transaction.atomic():
        # The lock holds off acceptances, and moves of the task that might follow them.
        task = (
            among.select_for_update(of=("self",), no_key=True)
            .select_related("series__study__subject")
            .filter(pk=task_id)
            .first()
        )
        if task is None:
            return None
        revisions = list(annotation.newest_revisions(task).select_related("slice", "label", "by"))
        review = None
        if task.state == State.ACCEPTED:
            accepting = task.reviews.filter(decision=ReviewRow.Decision.ACCEPTED)
            review = accepting.select_related("reviewer").last()
        return _delineation(task.series, revisions, review)


def _delineation(
    series: Series, revisions: list[MaskRevision], review: ReviewRow | None
) -> Delineation:
    rows = list(series.slices.select_related("instance").order_by("index"))
    header = header_of(series.instances.all()[0])
    return Delineation(
        study_id=series.study_id,
        study_number=series.study.number,
        series_number=_number_in_study(series),
        study_uid=series.study.study_uid,
        series_uid=series.series_uid,
        subject=series.study.subject.pseudonym,
        modality=series.modality,
        rows=series.rows,
        columns=series.columns,
        pixel_spacing_mm=_pixel_spacing_mm(series),
        slice_thickness_mm=_thickness_mm(series, header),
        orientation=None if series.orientation is None else tuple(series.orientation),
        nifti_place=NiftiPlace.model_validate(series.nifti_place) if series.nifti_place else None,
        patient=_patient(header),
        frame_of_reference_uid=series.frame_of_reference_uid,
        slices=tuple(
            Slice(
                number=row.index + 1,
                sop_instance_uid=row.instance.sop_instance_uid,
                sop_class_uid=row.instance.sop_class_uid,
                frame_number=row.frame_number,
                position=None if row.position is None else _vector(row.position),
            )
            for row in rows
        ),
        labels=tuple(
            Label(value=label.value, name=label.name, color=label.color)
            for label in sorted({each.label for each in revisions}, key=lambda each: each.value)
        ),
        masks=tuple(
            sorted(
                (_accepted(revision) for revision in revisions),
                key=lambda each: (each.slice_number, each.label_value),
            )
        ),
        review=None if review is None else Review(by=review.reviewer.username, at=review.at),
        model_names=dict(
            ModelVersion.objects.filter(
                digest__in={each.model_digest for each in revisions}
            ).values_list("digest", "name")
        ),
    )


def _accepted(revision: MaskRevision) -> AcceptedMask:
    box = revision.prompts.get("box")
    return AcceptedMask(
        slice_number=revision.slice.index + 1,
        label_value=revision.label.value,
        runs=RunLengths.model_validate(revision.mask),
        revision_id=str(revision.id),
        revision=revision.number,
        by=revision.by.username,
        at=revision.at,
        points=tuple(Point.model_validate(each) for each in revision.prompts.get("points", [])),
        box=None if box is None else Box.model_validate(box),
        model_digest=revision.model_digest,
        hand_drawn_share=revision.hand_drawn_share,
        active_seconds=revision.active_seconds,
    )


def _number_in_study(series: Series) -> int:
    ids = series.study.series.order_by(*SERIES_ORDER).values_list("id", flat=True)
    return list(ids).index(series.id) + 1


def _pixel_spacing_mm(series: Series) -> tuple[float, float] | None:
    if series.row_spacing_mm is None or series.column_spacing_mm is None:
        return None
    return series.row_spacing_mm, series.column_spacing_mm


def _patient(header: Dataset) -> Patient | None:
    def text(keyword: str) -> str:
        return str(header.get(keyword, ""))

    if not (text("PatientID") or text("PatientName")):
        return None
    return Patient(
        number=text("PatientID"),
        name=text("PatientName"),
        birth_date=text("PatientBirthDate"),
    )


def _thickness_mm(series: Series, header: Dataset) -> float | None:
    """SliceThickness as the first image says it, else the distance between slices."""
    thickness = header.get("SliceThickness")
    return float(thickness) if thickness else series.slice_spacing_mm


def _vector(numbers: list[float]) -> tuple[float, float, float]:
    x, y, z = numbers
    return x, y, z
