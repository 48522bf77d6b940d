"""Reads of studies, each within what its reader may know of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import (
    Count,
    Exists,
    IntegerField,
    JSONField,
    Min,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
)
from django.db.models.expressions import RawSQL
from pydicom import Dataset

from delineate.accounts.models import User
from delineate.errors import DelineateError, NotAllowed, NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require, role_in, roles_with
from delineate.projects.selectors import membership_for, project_named, projects_of
from delineate.studies import deidentify
from delineate.studies.models import (
    SERIES_ORDER,
    BlackOut,
    Encoding,
    Erasure,
    Instance,
    Quarantine,
    Reference,
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
_HELD: Final = """
    SELECT count(*) FROM jsonb_array_elements(studies_upload.report) AS line
    WHERE line ->> 'code' = 'in_quarantine'
"""


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
    """Uploads with ``fates``: how many files were stored, duplicate, skipped and refused; ``held``:
    how many went into quarantine.
    """
    counted = RawSQL(_FATES, (), output_field=JSONField())  # noqa: S611 (nobody's input is in it)
    held = RawSQL(_HELD, (), output_field=IntegerField())  # noqa: S611
    return uploads.select_related("by").annotate(fates=counted, held=held)


def studies_of(project: Project, *, model_digest: str | None) -> QuerySet[Study]:
    """A project's studies with their series, each with its ``slice_count`` and ``prepared``, and
    with the modalities of their references.
    """
    return project.studies.select_related("subject").prefetch_related(
        Prefetch("series", queryset=counted(Series.objects.all(), model_digest=model_digest)),
        Prefetch("references", queryset=Reference.objects.only("study", "modality")),
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


@dataclass(frozen=True)
class Shown:
    """What of a project somebody is shown: all, or all but what is in quarantine."""

    project: Project
    sees_held: bool

    def of(self, to_series: str = "") -> Q:
        """The same of series, or of what hangs on them."""
        whose = Q(**{f"{to_series}study__project": self.project})
        return whose if self.sees_held else whose & not_held(to_series)

    def of_references(self) -> Q:
        """The same of references."""
        whose = Q(study__project=self.project)
        return whose if self.sees_held else whose & Q(is_held=False)


def shown_to(reader: Reader, project_id: UUID) -> Shown:
    """What a member is shown of a project; NotFound for everybody else."""
    membership = membership_for(reader, project_id)
    return Shown(membership.project, membership.role in roles_with(Action.RELEASE))


def studies_in(shown: Shown) -> QuerySet[Study]:
    """The studies that somebody is shown anything of."""
    of_study = {"study": OuterRef("pk")}
    return Study.objects.filter(
        Exists(series_in(shown).filter(**of_study))
        | Exists(references_in(shown).filter(**of_study))
    )


def series_in(shown: Shown) -> QuerySet[Series]:
    """The series that somebody is shown, each volume of a DICOM series a row."""
    return Series.objects.filter(shown.of())


def instances_in(
    shown: Shown,
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> QuerySet[Instance]:
    """The instances that somebody is shown, with a row in each volume that has frames of it."""
    named = {
        "series__study__study_uid": study_uid,
        "series__series_uid": series_uid,
        "sop_instance_uid": sop_uid,
    }
    return Instance.objects.filter(
        shown.of("series__"), **{path: uid for path, uid in named.items() if uid}
    )


def references_in(
    shown: Shown,
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> QuerySet[Reference]:
    """The references that somebody is shown."""
    named = {
        "study__study_uid": study_uid,
        "series_uid": series_uid,
        "sop_instance_uid": sop_uid,
    }
    return Reference.objects.filter(
        shown.of_references(), **{path: uid for path, uid in named.items() if uid}
    )


@dataclass(frozen=True)
class Header:
    """An instance's header as it is kept here, and whose it is."""

    dicom_json: dict[str, Any]
    pseudonym: str
    study_number: int


def headers_in(
    shown: Shown, *, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
) -> Iterator[Header]:
    """The headers of a study, of a series in it, or of an instance, each once; NotFound.

    Not of references, for which there may be nothing else.
    """
    grouped = _grouped(shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid)
    return (
        header for ids in _batches([ids[0] for ids in grouped]) for header in _headers(ids).values()
    )


def objects_in(
    shown: Shown, *, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
) -> Iterator[tuple[Header, list[Slice]]]:
    """The same with their frames, in the order of the frames' numbers; NotFound."""
    grouped = _grouped(shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid)
    return (each for batch in _batches(grouped) for each in _objects(batch))


def with_headers(references: QuerySet[Reference]) -> Iterator[tuple[Header, Reference]]:
    """References, and whose their headers are."""
    # No cursor: a download that is broken off would leave it open.
    for ids in _batches(list(references.values_list("id", flat=True))):
        for reference in references.filter(id__in=ids).select_related("study__subject"):
            study = reference.study
            yield Header(reference.header, study.subject.pseudonym, study.number), reference


def slices_in(
    shown: Shown, *, study_uid: str, series_uid: str, sop_uid: str, frames: Sequence[int] = ()
) -> list[Slice]:
    """Frames of an instance, in the order asked for, or all of them; NotFound when one lacks."""
    # Along the indices: study, series, instance, frame. By way of the slice's own series it would
    # read every slice of that to find one.
    slices = (
        Slice.objects.filter(
            shown.of("instance__series__"),
            instance__series__study__study_uid=study_uid,
            instance__series__series_uid=series_uid,
            instance__sop_instance_uid=sop_uid,
        )
        .select_related("series")
        .order_by("frame_number")
    )
    found = {
        slice_.frame_number: slice_
        for slice_ in (slices.filter(frame_number__in=frames) if frames else slices)
    }
    wanted = frames or list(found)
    if not wanted or not found.keys() >= set(wanted):
        raise _missing("frame", shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid)
    return [found[number] for number in wanted]


def slice_in(shown: Shown, *, study_uid: str, series_uid: str, sop_uid: str, frame: int) -> Slice:
    """A frame of an instance by its UIDs and number; NotFound."""
    return slices_in(
        shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid, frames=[frame]
    )[0]


def bits_stored_of(slice_: Slice) -> int:
    """BitsStored of the slice's instance, without the rest of its header."""
    value = (
        Instance.objects.filter(slices=slice_)
        .values_list("header__00280101__Value__0", flat=True)
        .get()
    )
    return int(value or 0)


def _missing(what: str, shown: Shown, **uids: str | None) -> DelineateError:
    """Why somebody is shown nothing under these UIDs: there is nothing, or it is held."""
    everything = Shown(shown.project, sees_held=True)
    is_there = _is_anything(everything, **uids)
    if is_there and not _is_anything(shown, **uids):
        return InQuarantine()
    if what == "frame" and references_in(shown, **uids).exists():
        return NotFound("It is kept as a reference: it can be had as a file, not by its frames.")
    return NotFound(f"There is no such {what}.")


def _is_anything(shown: Shown, **uids: str | None) -> bool:
    return instances_in(shown, **uids).exists() or references_in(shown, **uids).exists()


def _grouped(shown: Shown, **uids: str | None) -> list[list[UUID]]:
    """The rows of each instance, in order of series and instance; raises where there are none."""
    instances = instances_in(shown, **uids)
    groups: dict[tuple[str, str], list[UUID]] = {}
    order = (*(f"series__{each}" for each in SERIES_ORDER), "sop_instance_uid")
    rows = instances.order_by(*order).values_list("series__series_uid", "sop_instance_uid", "id")
    for series_uid, sop_uid, row in rows.iterator():
        groups.setdefault((series_uid, sop_uid), []).append(row)
    if not groups and not references_in(shown, **uids).exists():
        raise _missing("study, series or instance", shown, **uids)
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


def unused_embeddings(keys: Iterable[str]) -> set[str]:
    """Of keys of embeddings, those that no slice has: equal pixels share one."""
    keys = set(keys)
    used = Encoding.objects.filter(embedding_key__in=keys)
    return keys - set(used.values_list("embedding_key", flat=True))


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
