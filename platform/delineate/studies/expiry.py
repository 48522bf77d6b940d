"""Transfers that nobody continues: after a day without a part their bytes, which name patients, go.

Bytes first, then the row's last word: where that is missing, the next sweep does both again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from delineate import jobs, live, storage
from delineate.audit import log as audit
from delineate.jobs import JobState
from delineate.studies.models import Upload

KEPT_FOR: Final = timedelta(hours=24)  # a night and the morning after
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"


def expires_at(upload: Upload) -> datetime:
    """When a transfer's bytes go unless it is continued."""
    return upload.heartbeat_at + KEPT_FOR


def end_forgotten_transfers() -> None:
    """Remove the bytes of those that expired, and what a discard that was cut off has left."""
    silent = Upload.objects.filter(
        state=JobState.ARRIVING,
        expected_bytes__isnull=False,  # what senders deliver file by file is not theirs to lose
        heartbeat_at__lt=timezone.now() - KEPT_FOR,
    )
    for upload_id in silent.values_list("id", flat=True):
        _expire(upload_id)
    for upload in Upload.objects.filter(state=JobState.FAILED, error_code=CANCELLED):
        remove(upload)


def remove(upload: Upload) -> None:
    """What was cancelled leaves nothing."""
    storage.delete_prefix(upload.blob_prefix)
    upload.delete()


def _expire(upload_id: UUID) -> None:
    with transaction.atomic():
        upload = (
            Upload.objects.select_for_update(skip_locked=True)
            .filter(id=upload_id, state=JobState.ARRIVING)
            .first()
        )
        if upload is None or expires_at(upload) > timezone.now():
            return  # ended, or continued meanwhile
        storage.delete_prefix(upload.blob_prefix)
        jobs.fail(
            upload, code=EXPIRED, message="It was not finished within a day; its bytes are gone."
        )
        audit.upload_discarded(
            upload.id, upload.project_id, by=None, bytes=upload.size_bytes, reason=EXPIRED
        )
        live.tell(upload.project_id, "upload", id=upload.id, state=str(upload.state))
