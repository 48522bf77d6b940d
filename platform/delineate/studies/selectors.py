"""Reads of studies, each within what its reader may know of."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Prefetch, Q, QuerySet
from pydicom import Dataset

from delineate.accounts.models import User
from delineate.errors import NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.selectors import project_named, projects_of
from delineate.studies.models import (
    SERIES_ORDER,
    Encoding,
    Instance,
    Series,
    Slice,
    Study,
    Upload,
)
from mlworker.contract.messages import SliceImage, Window

Reader = User | AnonymousUser


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
    """The series, for members of its project; NotFound for everybody else."""
    series = (
        Series.objects.filter(id=series_id, study__project__in=projects_of(user))
        .select_related("study__project", "study__subject")
        .first()
    )
    if series is None:
        raise NotFound("There is no such series, or you are not a member of its project.")
    return series


def destination_named(project: str, *, username: str) -> tuple[Project, User]:
    """Where an upload without a browser goes, and whose it is; NotFound. The right is its door's.

    ``project``: its name or id.
    """
    user = User.objects.filter(username=username).first()
    if user is None:
        raise NotFound(f"There is no user {username}.", code="unknown_user")
    return project_named(project), user


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


def headers_in(project: Project, *, study_uid: str, series_uid: str) -> list[dict[str, Any]]:
    """The headers of a DICOM series' instances as DICOM JSON, each once; NotFound."""
    instances = Instance.objects.filter(
        series__study__project=project,
        series__study__study_uid=study_uid,
        series__series_uid=series_uid,
    )
    # An instance whose frames belong to several volumes has a row in each.
    headers = {instance.sop_instance_uid: instance.header for instance in instances}
    if not headers:
        raise NotFound("There is no such series.")
    return list(headers.values())


def slice_in(
    project: Project, *, study_uid: str, series_uid: str, sop_uid: str, frame: int
) -> Slice:
    """A frame of an instance by its UIDs and number; NotFound."""
    slice_ = Slice.objects.filter(
        series__study__project=project,
        series__study__study_uid=study_uid,
        series__series_uid=series_uid,
        instance__sop_instance_uid=sop_uid,
        frame_number=frame,
    ).first()
    if slice_ is None:
        raise NotFound("There is no such frame.")
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
