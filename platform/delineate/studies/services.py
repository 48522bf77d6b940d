"""Acts on uploads and studies."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final

from django.conf import settings
from django.core.files import File
from django.db import transaction
from kombu.exceptions import OperationalError

from delineate import live, storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Invalid, NotFound
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies.models import Encoding, Slice, Study, Upload
from delineate.studies.tasks import ingest_upload_task
from mlworker.contract.artifacts import study_prefix

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1024 * 1024


class UploadTooLarge(Invalid):
    """More bytes than one upload may have."""

    status = 413
    code = "too_large"


def receive_upload(project: Project, *, files: Sequence[File[bytes]], by: User) -> Upload:
    """Keep files durably and owe their ingest.

    Raises Invalid ``no_files``, UploadTooLarge.
    """
    require(by, Action.UPLOAD, project)
    size_bytes = sum(file.size for file in files)
    _refuse_by_size(files, size_bytes)
    upload = Upload(
        id=uuid.uuid4(), project=project, by=by, blob_count=len(files), size_bytes=size_bytes
    )
    try:
        # Before the row: what is acknowledged must be there. A row that is never made leaves
        # bytes nobody refers to, which is the lesser evil.
        for number, file in enumerate(files):
            storage.put_chunks(upload.blob_key(number), iter(file.chunks(CHUNK_BYTES)))
        with transaction.atomic():
            upload.save(force_insert=True)
            audit.upload_received(upload.id, project.id, by=by, files=len(files), bytes=size_bytes)
            live.tell(project.id, "upload", id=upload.id, state=str(upload.state))
            transaction.on_commit(partial(_hurry, upload.id))
    except BaseException:
        storage.delete_prefix(upload.blob_prefix)
        raise
    return upload


def delete_study(study: Study, *, by: User) -> None:
    """Remove a study with its slices, masks and embeddings; NotFound when it is gone already."""
    require(by, Action.DELETE_STUDY, study.project)
    with transaction.atomic():
        locked = Study.objects.select_for_update().filter(id=study.id).first()
        if locked is None:
            raise NotFound("The study has been deleted already.")
        slices = Slice.objects.filter(series__study=locked)
        embeddings = set(
            Encoding.objects.filter(slice__in=slices).values_list("embedding_key", flat=True)
        )
        counts = {"series": locked.series.count(), "slices": slices.count()}
        locked.delete()
        # Equal pixels elsewhere share an embedding.
        still_used = set(
            Encoding.objects.filter(embedding_key__in=embeddings).values_list(
                "embedding_key", flat=True
            )
        )
        audit.study_deleted(study.project_id, study.id, by=by, **counts)
        live.tell(study.project_id, "study_deleted", id=study.id)
        transaction.on_commit(partial(_remove_objects, study.id, embeddings - still_used))


def _refuse_by_size(files: Sequence[File[bytes]], size_bytes: int) -> None:
    if not files or size_bytes == 0:
        raise Invalid("The upload holds no files.", code="no_files")
    limit: int = settings.ENVIRONMENT.max_upload_bytes
    if size_bytes > limit:
        raise UploadTooLarge(
            f"The upload is larger than {limit // 1024**2} MiB; send it in parts.",
            limit_bytes=limit,
        )


def _hurry(upload_id: uuid.UUID) -> None:
    try:
        ingest_upload_task.delay(str(upload_id))
    except (OperationalError, OSError) as error:
        logger.warning("Upload %s waits for the sweep: %s", upload_id, error)


def _remove_objects(study_id: uuid.UUID, embedding_keys: set[str]) -> None:
    storage.delete_prefix(study_prefix(str(study_id)))
    for key in embedding_keys:
        storage.delete(key)
