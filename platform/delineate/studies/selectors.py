"""Reads of studies, each within what its reader may know of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
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
T = TypeVar("T")

READ_AT_ONCE: Final = 32  # headers; of an enhanced object one can be a megabyte

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


def studies_in(project: Project) -> QuerySet[Study]:
    """The project's studies."""
    return Study.objects.filter(project=project)


def series_in(project: Project) -> QuerySet[Series]:
    """The project's series, each volume of a DICOM series a row."""
    return Series.objects.filter(study__project=project)


def instances_in(
    project: Project,
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> QuerySet[Instance]:
    """The project's instances; one whose frames belong to several volumes has a row in each."""
    named = {
        "series__study__study_uid": study_uid,
        "series__series_uid": series_uid,
        "sop_instance_uid": sop_uid,
    }
    return Instance.objects.filter(
        series__study__project=project, **{path: uid for path, uid in named.items() if uid}
    )


@dataclass(frozen=True)
class Header:
    """An instance's header as it is kept here, and whose it is."""

    dicom_json: dict[str, Any]
    pseudonym: str
    study_number: int


def headers_in(
    project: Project, *, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
) -> Iterator[Header]:
    """The headers of a study, of a series in it, or of an instance, each once; NotFound."""
    grouped = _grouped(
        instances_in(project, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid)
    )
    return (
        header for ids in _batches([ids[0] for ids in grouped]) for header in _headers(ids).values()
    )


def objects_in(
    project: Project, *, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
) -> Iterator[tuple[Header, list[Slice]]]:
    """The same with their frames, in the order of the frames' numbers; NotFound."""
    grouped = _grouped(
        instances_in(project, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid)
    )
    return (each for batch in _batches(grouped) for each in _objects(batch))


def slices_in(
    project: Project, *, study_uid: str, series_uid: str, sop_uid: str, frames: Sequence[int] = ()
) -> list[Slice]:
    """Frames of an instance, in the order asked for, or all of them; NotFound when one lacks."""
    # Along the indices: study, series, instance, frame. By way of the slice's own series it would
    # read every slice of that to find one.
    slices = Slice.objects.filter(
        instance__series__study__project=project,
        instance__series__study__study_uid=study_uid,
        instance__series__series_uid=series_uid,
        instance__sop_instance_uid=sop_uid,
    ).order_by("frame_number")
    found = {
        slice_.frame_number: slice_
        for slice_ in (slices.filter(frame_number__in=frames) if frames else slices)
    }
    wanted = frames or list(found)
    if not wanted or not found.keys() >= set(wanted):
        raise NotFound("There is no such frame.")
    return [found[number] for number in wanted]


def slice_in(
    project: Project, *, study_uid: str, series_uid: str, sop_uid: str, frame: int
) -> Slice:
    """A frame of an instance by its UIDs and number; NotFound."""
    return slices_in(
        project, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid, frames=[frame]
    )[0]


def bits_stored_of(slice_: Slice) -> int:
    """BitsStored of the slice's instance, without the rest of its header."""
    value = (
        Instance.objects.filter(slices=slice_)
        .values_list("header__00280101__Value__0", flat=True)
        .get()
    )
    return int(value or 0)


def _grouped(instances: QuerySet[Instance]) -> list[list[UUID]]:
    """The rows of each instance, in order of series and instance; NotFound where there are none."""
    groups: dict[tuple[str, str], list[UUID]] = {}
    order = (*(f"series__{each}" for each in SERIES_ORDER), "sop_instance_uid")
    rows = instances.order_by(*order).values_list("series__series_uid", "sop_instance_uid", "id")
    for series_uid, sop_uid, row in rows.iterator():
        groups.setdefault((series_uid, sop_uid), []).append(row)
    if not groups:
        raise NotFound("There is no such study, series or instance.")
    return list(groups.values())


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + READ_AT_ONCE] for start in range(0, len(items), READ_AT_ONCE))


def _headers(ids: Sequence[UUID]) -> dict[UUID, Header]:
    """In the order of ``ids``; those deleted meanwhile are missing."""
    rows = Instance.objects.filter(id__in=ids).values_list(
        "id", "header", "series__study__subject__pseudonym", "series__study__number"
    )
    found = {row: Header(*rest) for row, *rest in rows}
    return {row: found[row] for row in ids if row in found}


def _objects(batch: Sequence[list[UUID]]) -> Iterator[tuple[Header, list[Slice]]]:
    slices: dict[UUID, list[Slice]] = defaultdict(list)
    rows = [row for ids in batch for row in ids]
    for slice_ in Slice.objects.filter(instance__in=rows):
        slices[slice_.instance_id].append(slice_)
    headers = _headers([ids[0] for ids in batch])
    for ids in batch:
        if (header := headers.get(ids[0])) is not None:
            frames = [slice_ for row in ids for slice_ in slices[row]]
            yield header, sorted(frames, key=lambda slice_: slice_.frame_number)


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
