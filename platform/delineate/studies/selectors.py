"""Reads of studies, each within what its reader may know of."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Prefetch, Q, QuerySet
from pydicom import Dataset

from delineate.accounts.models import User
from delineate.errors import NotAllowed, NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.permissions import Action, role_in, roles_with
from delineate.projects.selectors import projects_of
from delineate.studies.models import (
    SERIES_ORDER,
    BlackOut,
    Encoding,
    Instance,
    Quarantine,
    Series,
    Slice,
    Study,
    Upload,
)
from mlworker.contract.messages import SliceImage, Window

Reader = User | AnonymousUser


class InQuarantine(NotAllowed):
    """Its pixels may show a patient's name, and nobody has looked at them yet."""

    code = "in_quarantine"

    def __init__(self) -> None:
        super().__init__(
            "The series is in quarantine: a project lead looks first whether a name stands in it."
        )


def not_held(to_series: str = "") -> Q:
    """Of series, or of what hangs on them: that nobody is kept from by quarantine."""
    return ~Q(**{f"{to_series}quarantine": Quarantine.HELD})


def refuse_held(series: Series) -> None:
    """Nobody works on a series while it is held; InQuarantine."""
    if series.quarantine == Quarantine.HELD:
        raise InQuarantine


def refuse_to_show_held(series: Series, *, reader: Reader) -> None:
    """A held series is shown to those who may release it alone; InQuarantine for others."""
    if series.quarantine != Quarantine.HELD:
        return
    if role_in(series.study.project, user=reader) not in roles_with(Action.RELEASE):
        raise InQuarantine


def study_for(user: Reader, study_id: UUID) -> Study:
    """The study, for members of its project; NotFound for everybody else."""
    study = (
        Study.objects.filter(id=study_id, project__in=projects_of(user))
        .select_related("project")
        .first()
    )
    if study is None:
        raise NotFound("There is no such study, or you are not a member of its project.")
    return study


def series_for(user: Reader, series_id: UUID) -> Series:
    """The series, for members of its project; NotFound for everybody else, InQuarantine."""
    series = (
        Series.objects.filter(id=series_id, study__project__in=projects_of(user))
        .select_related("study__project", "study__subject")
        .first()
    )
    if series is None:
        raise NotFound("There is no such series, or you are not a member of its project.")
    refuse_to_show_held(series, reader=user)
    return series


def upload_for(user: Reader, upload_id: UUID) -> Upload:
    """The upload, for members of its project; NotFound for everybody else."""
    upload = (
        Upload.objects.filter(id=upload_id, project__in=projects_of(user))
        .select_related("project")
        .first()
    )
    if upload is None:
        raise NotFound("There is no such upload, or you are not a member of its project.")
    return upload


def studies_of(project: Project, *, model_digest: str | None) -> QuerySet[Study]:
    """A project's studies with their series, each with its ``slice_count`` and ``prepared``."""
    return project.studies.select_related("subject").prefetch_related(
        Prefetch("series", queryset=counted(Series.objects.all(), model_digest=model_digest))
    )


def counted(series: QuerySet[Series], *, model_digest: str | None) -> QuerySet[Series]:
    """Series with ``slice_count`` and, of those, how many are ``prepared`` for a model."""
    # Said once more: Django leaves a model's own order out where it groups.
    return series.order_by(*SERIES_ORDER).annotate(
        slice_count=Count("slices", distinct=True),
        prepared=Count(
            "slices__encodings",
            filter=Q(
                slices__encodings__model_digest=model_digest or "",
                slices__encodings__state=JobState.DONE,
            ),
            distinct=True,
        ),
    )


def prepared_slices(series: Series, *, model_digest: str) -> set[UUID]:
    """The slices of a series that answer at once."""
    return set(
        Encoding.objects.filter(
            slice__series=series, model_digest=model_digest, state=JobState.DONE
        ).values_list("slice_id", flat=True)
    )


def headers_in(
    project: Project, *, study_uid: str, series_uid: str, reader: Reader
) -> list[dict[str, Any]]:
    """The headers of a DICOM series' instances as DICOM JSON, each once; NotFound, InQuarantine."""
    volumes = Series.objects.filter(
        study__project=project, study__study_uid=study_uid, series_uid=series_uid
    ).select_related("study__project")
    if not volumes:
        raise NotFound("There is no such series.")
    held: list[InQuarantine] = []
    # An instance whose frames belong to several volumes has a row in each.
    headers: dict[str, dict[str, Any]] = {}
    for volume in volumes:
        try:
            refuse_to_show_held(volume, reader=reader)
        except InQuarantine as refusal:
            held.append(refusal)
            continue
        instances = Instance.objects.filter(series=volume)
        headers |= {instance.sop_instance_uid: instance.header for instance in instances}
    if held and not headers:
        raise held[0]
    return list(headers.values())


def slice_in(
    project: Project, *, study_uid: str, series_uid: str, sop_uid: str, frame: int, reader: Reader
) -> Slice:
    """A frame of an instance by its UIDs and number, with its series; NotFound, InQuarantine."""
    slice_ = (
        Slice.objects.filter(
            series__study__project=project,
            series__study__study_uid=study_uid,
            series__series_uid=series_uid,
            instance__sop_instance_uid=sop_uid,
            frame_number=frame,
        )
        .select_related("series__study__project")
        .first()
    )
    if slice_ is None:
        raise NotFound("There is no such frame.")
    refuse_to_show_held(slice_.series, reader=reader)
    return slice_


def held_series(project: Project) -> QuerySet[Series]:
    """What a lead has to look at, each with its ``slice_count`` and last black-out."""
    held = Series.objects.filter(study__project=project, quarantine=Quarantine.HELD)
    return (
        held.select_related("study__subject")
        .prefetch_related(Prefetch("black_outs", queryset=BlackOut.objects.all()))
        .annotate(slice_count=Count("slices"))
        .order_by("study__number", *SERIES_ORDER[1:], "id")
    )


def slice_at(series: Series, index: int) -> Slice:
    """A series' slice by its place; NotFound."""
    slice_ = series.slices.filter(index=index).first()
    if slice_ is None:
        raise NotFound("The series has no such slice.")
    return slice_


def image_of(slice_: Slice) -> SliceImage:
    """What the worker may know of a slice; its ``series`` should be fetched with it."""
    series = slice_.series
    window = None
    if series.window_centre is not None and series.window_width is not None:
        window = Window(centre=series.window_centre, width=series.window_width)
    return SliceImage(
        pixels_key=slice_.pixels_key,
        pixels_digest=slice_.pixels_digest,
        height=series.rows,
        width=series.columns,
        slope=slice_.slope,
        intercept=slice_.intercept,
        inverted=slice_.inverted,
        window=window,
    )


def header_of(instance: Instance) -> Dataset:
    """An instance's header as it is kept here, without pixels."""
    return Dataset.from_json(instance.header)
