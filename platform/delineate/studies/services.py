"""Acts on uploads and studies."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.core.files import File
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from delineate import storage
from delineate.accounts.models import User
from delineate.errors import Conflict, Invalid, NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies import arrivals, removal
from delineate.studies.mapping import is_mapping
from delineate.studies.models import UPLOADS_PREFIX, Study, Upload, WayIn
from delineate.studies.tasks import ingest_upload_task

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1024 * 1024
SIGN_OF_LIFE_EVERY: Final = timedelta(seconds=1)


class UploadTooLarge(Invalid):
    """More bytes than one upload may have."""

    status = 413
    code = "too_large"


def receive_upload(
    project: Project, *, files: Sequence[File[bytes]], by: User, way_in: WayIn = WayIn.BROWSER
) -> Upload:
    """Keep files that are all there durably and owe their ingest.

    Raises Invalid ``no_files``, UploadTooLarge.
    """
    require(by, Action.UPLOAD, project)
    size_bytes = sum(file.size for file in files)
    refuse_by_size(size_bytes)
    upload = Upload(
        project=project, by=by, way_in=way_in, blob_count=len(files), size_bytes=size_bytes
    )
    try:
        # Before the row: what is acknowledged must be there. A row that is never made leaves
        # bytes nobody refers to, which is the lesser evil.
        names_matter = any(is_mapping(file.name or "") for file in files)
        for number, file in enumerate(files):
            if names_matter and file.name:
                storage.put(upload.name_key(number), file.name.encode(errors="replace"))
            storage.put_chunks(upload.blob_key(number), iter(file.chunks(CHUNK_BYTES)))
        with transaction.atomic():
            upload.save(force_insert=True)
            arrivals.take_note(upload)
            transaction.on_commit(partial(_hurry, upload.id))
    except BaseException:
        storage.delete_prefix(upload.blob_prefix)
        raise
    return upload


def begin_upload(project: Project, *, by: User, way_in: WayIn) -> Upload:
    """An upload whose files come one by one: `add_blob` for each, then `end_upload`."""
    require(by, Action.UPLOAD, project)
    return Upload.objects.create(project=project, by=by, way_in=way_in, state=JobState.ARRIVING)


def add_blob(upload: Upload, chunks: Iterator[bytes], *, name: str = "") -> int:
    """Keep one more file durably; its number. Whoever is told of it may forget the file.

    ``name``: its path as its sender sees it, for a mapping that may come with it. Raises Conflict
    ``upload_ended``.
    """
    number = upload.blob_count
    if name:
        storage.put(upload.name_key(number), name.encode(errors="replace"))
    key = upload.blob_key(number)
    size = storage.put_chunks(key, _with_signs_of_life(upload, chunks))
    storage.sync_folder(upload.blob_prefix)
    if number == 0:
        storage.sync_folder(UPLOADS_PREFIX)  # where the upload's own folder has just been made
    # Asked when the file is there: whoever ends the upload from now on finds it. The row is not
    # written for each file, which would wait for the disk a second time.
    now = Upload.objects.filter(id=upload.id).values_list("state", "blob_count").first()
    if now is None or now[0] != JobState.ARRIVING:
        if now is None or now[1] <= number:
            storage.delete(key)
            storage.delete(upload.name_key(number))
        raise Conflict("The upload has ended already.", code="upload_ended")
    upload.blob_count = number + 1
    upload.size_bytes += size
    _give_sign_of_life(upload)
    return number


def _with_signs_of_life(upload: Upload, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A large file from a slow place takes longer than an upload may be silent."""
    for chunk in chunks:
        yield chunk
        _give_sign_of_life(upload)


def _give_sign_of_life(upload: Upload) -> None:
    if timezone.now() - upload.heartbeat_at < SIGN_OF_LIFE_EVERY:
        return
    upload.heartbeat_at = timezone.now()
    Upload.objects.filter(id=upload.id, state=JobState.ARRIVING).update(
        blob_count=upload.blob_count,
        size_bytes=upload.size_bytes,
        heartbeat_at=upload.heartbeat_at,
    )


def end_upload(upload: Upload) -> None:
    """Nothing more comes: owe the ingest of what is there; without any files the upload goes."""
    with transaction.atomic():
        if arrivals.end(upload.id):
            transaction.on_commit(partial(_hurry, upload.id))


def discard_upload(upload: Upload) -> None:
    """Forget what has arrived of an upload that has not ended, and was acknowledged to nobody."""
    arrivals.discard(upload.id)


def settle_left_behind(way_in: WayIn) -> None:
    """Of a receiver that starts: end or discard what its predecessor had begun, however lately."""
    with transaction.atomic():
        for upload_id in arrivals.settle(way_in, silent_for=timedelta()):
            transaction.on_commit(partial(_hurry, upload_id))


def delete_study(study: Study, *, by: User) -> None:
    """Remove a study with its slices, masks and embeddings; NotFound when it is gone already."""
    require(by, Action.DELETE_STUDY, study.project)
    with transaction.atomic():
        locked = Study.objects.select_for_update().filter(id=study.id).first()
        if locked is None:
            raise NotFound("The study has been deleted already.")
        transaction.on_commit(partial(removal.remove_objects, removal.remove_rows(locked, by=by)))


def refuse_by_size(size_bytes: int) -> None:
    """Raises Invalid ``no_files``, UploadTooLarge."""
    if size_bytes == 0:
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
