"""Reads of studies, each within what its reader may know of."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, JSONField, Min, Prefetch, Q, QuerySet
from django.db.models.expressions import RawSQL
from pydicom import Dataset

from delineate.accounts.models import User
from delineate.errors import NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.projects.selectors import projects_of
from delineate.studies import deidentify
from delineate.studies.models import (
    SERIES_ORDER,
    Encoding,
    Erasure,
    Instance,
    Series,
    Slice,
    Study,
    Subject,
    Upload,
)
from mlworker.contract.messages import SliceImage, Window

Reader = User | AnonymousUser

# A report has a line for each of 100,000 files: it is counted where it lies.
_FATES: Final = """
    SELECT jsonb_object_agg(fate, files) FROM (
        SELECT line ->> 'fate' AS fate, count(*) AS files
        FROM jsonb_array_elements(studies_upload.report) AS line GROUP BY 1
    ) AS counted
"""


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


def subject_for(user: Reader, subject_id: int) -> Subject:
    """The subject, for members of its project; NotFound for everybody else."""
    subject = (
        Subject.objects.filter(id=subject_id, project__in=projects_of(user))
        .select_related("project")
        .first()
    )
    if subject is None:
        raise NotFound("There is no such subject, or you are not a member of its project.")
    return subject


def subjects_of(project: Project) -> QuerySet[Subject]:
    """A project's subjects, each with ``study_count``, ``series_count``, ``slice_count`` and
    ``added_at``.
    """
    return project.subjects.prefetch_related("aliases").annotate(
        study_count=Count("studies", distinct=True),
        series_count=Count("studies__series", distinct=True),
        slice_count=Count("studies__series__slices", distinct=True),
        added_at=Min("studies__created_at"),
    )


def awaited_erasures(project: Project) -> dict[int, Erasure]:
    """The erasures that have not come to their good end, by the id of a subject that awaits one."""
    awaited = list(project.erasures.exclude(state=JobState.DONE))
    if not awaited:
        return {}
    key = bytes(project.pseudonym_key)
    digests = {
        deidentify.tombstone("subject", subject.pseudonym, key=key): subject.id
        for subject in project.subjects.all()
    }
    return {
        digests[digest]: erasure
        for erasure in awaited
        for digest in erasure.digests
        if digest in digests
    }


def upload_for(user: Reader, upload_id: UUID) -> Upload:
    """The upload, for members of its project; NotFound for everybody else."""
    upload = (
        _told(Upload.objects.filter(id=upload_id, project__in=projects_of(user)))
        .select_related("project")
        .first()
    )
    if upload is None:
        raise NotFound("There is no such upload, or you are not a member of its project.")
    return upload


def surviving(project: Project, pseudonym: str) -> str:
    """The pseudonym of the subject that this one was merged into, or itself."""
    alias = project.subject_aliases.filter(pseudonym=pseudonym).select_related("subject").first()
    return pseudonym if alias is None else alias.subject.pseudonym


def is_erased(project: Project, *, subject: str, study_uid: str) -> bool:
    """Whether a pseudonym's subject, or a study, was erased from the project."""
    key = bytes(project.pseudonym_key)
    digests = [
        deidentify.tombstone("subject", subject, key=key),
        deidentify.tombstone("study", study_uid, key=key),
    ]
    return project.erasures.filter(digests__overlap=digests).exists()


def uploads_of(project: Project) -> QuerySet[Upload]:
    """A project's uploads, newest first, without their reports, which can be long."""
    return _told(project.uploads.all()).defer("report")


def transfer_for(user: Reader, upload_id: UUID) -> Upload:
    """One's own upload that comes in parts, while one may upload; NotFound, NotAllowed."""
    upload = upload_for(user, upload_id)
    require(user, Action.UPLOAD, upload.project)
    if upload.by_id != user.pk or upload.expected_bytes is None:
        raise NotFound("There is no such transfer, or somebody else has begun it.")
    return upload


def _told(uploads: QuerySet[Upload]) -> QuerySet[Upload]:
    """Uploads with ``fates``: how many files were stored, duplicate, skipped and refused."""
    counted = RawSQL(_FATES, (), output_field=JSONField())  # noqa: S611 (nobody's input is in it)
    return uploads.select_related("by").annotate(fates=counted)


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
