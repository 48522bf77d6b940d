"""Uploads and studies."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import File, Router, Schema, Status
from ninja.files import UploadedFile
from pydantic import ConfigDict

from delineate.accounts.permissions import user_of
from delineate.jobs import JobState
from delineate.projects.selectors import project_for
from delineate.registry.selectors import active_digest
from delineate.studies import selectors, services, subjects
from delineate.studies.expiry import expires_at
from delineate.studies.geometry import SENTENCES, Oddity
from delineate.studies.models import Erasure, Quarantine, Series, Study, Subject, Upload

router = Router(tags=["studies"])


class FileFate(Schema):
    """What became of a file; files are numbered, because names can identify people."""

    file: int
    fate: str
    code: str
    message: str


class UploadSummary(Schema):
    """An upload and how far its ingest has come."""

    id: UUID
    state: str
    way_in: str
    by: str
    blob_count: int
    size_bytes: int
    expected_bytes: int | None
    expires_at: datetime | None
    files_total: int
    files_done: int
    created_at: datetime
    finished_at: datetime | None
    error_code: str
    error_message: str
    fates: dict[str, int]
    held: int

    @staticmethod
    def resolve_by(upload: Upload) -> str:
        """The user's name."""
        return upload.by.username

    @staticmethod
    def resolve_expires_at(upload: Upload) -> datetime | None:
        """When its bytes go unless it is continued."""
        comes_in_parts = upload.state == JobState.ARRIVING and upload.expected_bytes is not None
        return expires_at(upload) if comes_in_parts else None

    @staticmethod
    def resolve_fates(upload: Upload) -> dict[str, int]:
        """How many files were stored, duplicate, skipped and refused, as the selector counts."""
        return getattr(upload, "fates", None) or {}

    @staticmethod
    def resolve_held(upload: Upload) -> int:
        """How many of the files went into quarantine, as the selector counts."""
        return getattr(upload, "held", 0)


class UploadOut(UploadSummary):
    """An upload with its report."""

    report: list[FileFate]


class OddityOut(Schema):
    """Something unusual about where a series' slices lie."""

    code: str
    sentence: str


class SeriesOut(Schema):
    """A series, or one volume of it; ``prepared`` of its ``slices`` answer a click at once."""

    id: UUID
    series_uid: str
    number: int
    volume: int
    modality: str
    rows: int
    columns: int
    slices: int
    prepared: int
    is_color: bool
    oddities: list[OddityOut]
    quarantine: Quarantine

    @staticmethod
    def resolve_oddities(series: Series) -> list[OddityOut]:
        """Each with a sentence for people."""
        return [OddityOut(code=code, sentence=SENTENCES[Oddity(code)]) for code in series.oddities]

    @staticmethod
    def resolve_slices(series: Series) -> int:
        """The number of slices."""
        return int(getattr(series, "slice_count"))  # noqa: B009 (annotated by the selector)


class ReferencesOut(Schema):
    """How many objects of a modality are kept beside a study's images."""

    modality: str
    count: int


class StudyOut(Schema):
    """A study of a pseudonymous subject."""

    id: UUID
    number: int
    subject: str
    created_at: datetime
    series: list[SeriesOut]
    references: list[ReferencesOut]

    @staticmethod
    def resolve_subject(study: Study) -> str:
        """The pseudonym."""
        return study.subject.pseudonym

    @staticmethod
    def resolve_series(study: Study) -> list[Series]:
        """The study's series."""
        return list(study.series.all())

    @staticmethod
    def resolve_references(study: Study) -> list[ReferencesOut]:
        """What is kept beside them, by modality."""
        counts = Counter(reference.modality for reference in study.references.all())
        return [ReferencesOut(modality=each, count=counts[each]) for each in sorted(counts)]


class MergeIn(Schema):
    """The subjects that become a part of the one in the address."""

    model_config = ConfigDict(extra="forbid")

    others: list[int]


class EraseIn(Schema):
    """The pseudonym of the subject in the address, typed by who wants it erased."""

    model_config = ConfigDict(extra="forbid")

    pseudonym: str


class SubjectRef(Schema):
    """A subject by its pseudonym."""

    id: int
    pseudonym: str


class ErasureOut(Schema):
    """An erasure and how far it has come."""

    id: UUID
    state: JobState
    studies_done: int
    studies_total: int


@router.post("/projects/{project_id}/uploads", response={201: UploadOut})
def post_upload(
    request: HttpRequest, project_id: UUID, files: File[list[UploadedFile]]
) -> Status[Upload]:
    """Upload a zip or single files; ingest goes on afterwards, see the upload's report."""
    user = user_of(request)
    return Status(201, services.receive_upload(project_for(user, project_id), files=files, by=user))


@router.get("/projects/{project_id}/uploads", response=list[UploadSummary])
def list_uploads(request: HttpRequest, project_id: UUID) -> list[Upload]:
    """The project's uploads, newest first."""
    return list(selectors.uploads_of(project_for(user_of(request), project_id))[:200])


@router.get("/uploads/{upload_id}", response=UploadOut)
def get_upload(request: HttpRequest, upload_id: UUID) -> Upload:
    """An upload with the fate of every file."""
    return selectors.upload_for(user_of(request), upload_id)


@router.get("/projects/{project_id}/studies", response=list[StudyOut])
def list_studies(request: HttpRequest, project_id: UUID) -> list[Study]:
    """The project's studies with their series."""
    project = project_for(user_of(request), project_id)
    return list(selectors.studies_of(project, model_digest=active_digest(project)))


@router.delete("/studies/{study_id}", response={204: None})
def delete_study(request: HttpRequest, study_id: UUID) -> Status[None]:
    """Delete a study with everything that was made of it."""
    user = user_of(request)
    services.delete_study(selectors.study_for(user, study_id), by=user)
    return Status(204, None)


@router.post("/subjects/{subject_id}/merge", response=SubjectRef)
def merge_subjects(request: HttpRequest, subject_id: int, chosen: MergeIn) -> Subject:
    """Make others a part of this subject, for good; 422 nothing_to_merge, subject_elsewhere."""
    user = user_of(request)
    into = selectors.subject_for(user, subject_id)
    return subjects.merge(into, others=chosen.others, by=user)


@router.post("/subjects/{subject_id}/erase", response={202: ErasureOut})
def erase_subject(request: HttpRequest, subject_id: int, confirmed: EraseIn) -> Status[Erasure]:
    """Erase a subject for good, with everything made of it; 422 confirmation_wrong."""
    user = user_of(request)
    subject = selectors.subject_for(user, subject_id)
    return Status(202, subjects.erase(subject, pseudonym=confirmed.pseudonym, by=user))
