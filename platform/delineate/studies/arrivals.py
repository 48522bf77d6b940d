"""How uploads whose files come one by one end: by their sender's word, or by its death.

A sender of C-STORE forgets each file that was acknowledged, so what an upload holds when its
receiver dies is ingested. A watched folder keeps its files until their upload has ended: what was
begun is thrown away, for it is taken again whole.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from delineate import live, storage
from delineate.audit import log as audit
from delineate.jobs import SILENT_AFTER, JobState
from delineate.studies.models import Upload, WayIn


def end(upload_id: UUID) -> bool:
    """Make an arriving upload owed; whether there is something to ingest. Safe to repeat."""
    with transaction.atomic():
        upload = Upload.objects.select_for_update().filter(id=upload_id).first()
        if upload is None or upload.state != JobState.ARRIVING:
            return False
        # The row may lag behind: what counts is what was kept.
        while (size := storage.size_of(upload.blob_key(upload.blob_count))) is not None:
            upload.blob_count += 1
            upload.size_bytes += size
        if upload.blob_count == 0:
            upload.delete()
            return False
        upload.state = JobState.PENDING
        upload.heartbeat_at = timezone.now()
        upload.save(update_fields=["state", "heartbeat_at", "blob_count", "size_bytes"])
        take_note(upload)
        return True


def discard(upload_id: UUID) -> None:
    """Remove an arriving upload with its files. Safe to repeat."""
    with transaction.atomic():
        upload = Upload.objects.select_for_update().filter(id=upload_id).first()
        if upload is None or upload.state != JobState.ARRIVING:
            return
        # Before the row: bytes that nobody refers to would stay.
        storage.delete_prefix(upload.blob_prefix)
        upload.delete()


def settle(way_in: WayIn, *, silent_for: timedelta = SILENT_AFTER) -> list[UUID]:
    """End or discard what has been silent for too long to be still arriving; what is owed now."""
    silent = Upload.objects.filter(
        way_in=way_in, state=JobState.ARRIVING, heartbeat_at__lte=timezone.now() - silent_for
    )
    upload_ids = list(silent.values_list("id", flat=True))
    if way_in == WayIn.DIMSE:
        return [upload_id for upload_id in upload_ids if end(upload_id)]
    assert way_in == WayIn.FOLDER, "no other way is known to be left behind"
    for upload_id in upload_ids:
        discard(upload_id)
    return []


def take_note(upload: Upload) -> None:
    """Record and tell that an upload has arrived; in the transaction that makes it so."""
    audit.upload_received(
        upload.id,
        upload.project_id,
        by=upload.by,
        way_in=str(upload.way_in),
        files=upload.blob_count,
        bytes=upload.size_bytes,
    )
    live.tell(upload.project_id, "upload", id=upload.id, state=str(upload.state))
