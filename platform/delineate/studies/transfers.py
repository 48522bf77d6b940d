"""An upload whose bytes come in parts, each durable before it is acknowledged.

    begin ──> append, append, … ──the last byte──> its ingest is owed
                 └── discard, or a day of silence: the bytes go

It has ``size_bytes`` of its ``expected_bytes``; there the next part has to begin. While a part is
being stored the row is locked, and whoever brings another one then is refused. With the last byte
the upload ends in the transaction that takes note of it; a repeat finds another offset, and changes
nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.utils import timezone

from delineate import jobs, live, storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid, NotFound
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies import expiry, services
from delineate.studies.models import Upload, WayIn
from delineate.studies.parts import part_key

MAX_PARTS: Final = 10_000  # of 8 MiB, as browsers send them: 80 GiB


class Busy(Conflict):
    """Another part of the upload is being stored."""

    status = 423
    code = "upload_busy"


class Gone(Conflict):
    """There is nothing left to continue."""

    status = 410
    code = expiry.EXPIRED


class TooMuch(Invalid):
    """More bytes than the upload was said to have."""

    status = 413
    code = "too_large"


class WrongChecksum(Invalid):
    """The part was changed on its way; it is sent again. The status is tus' own."""

    status = 460
    code = "wrong_checksum"


@dataclass(frozen=True)
class Checksum:
    """What a part's bytes should come to."""

    algorithm: str  # of hashlib
    digest: bytes


def begin(project: Project, *, by: User, expected_bytes: int) -> Upload:
    """An upload of so many bytes, of which none have come; raises UploadTooLarge, Invalid."""
    require(by, Action.UPLOAD, project)
    services.refuse_by_size(expected_bytes)
    with transaction.atomic():
        upload = Upload.objects.create(
            project=project,
            by=by,
            way_in=WayIn.BROWSER,
            state=JobState.ARRIVING,
            expected_bytes=expected_bytes,
        )
        live.tell(project.id, "upload", id=upload.id, state=str(upload.state))
    return upload


def append(
    upload: Upload, *, offset: int, chunks: Iterator[bytes], checksum: Checksum | None = None
) -> Upload:
    """Keep a part durably, and after the last one owe the ingest; the upload as it is then.

    Raises Busy, Gone, TooMuch, WrongChecksum, Conflict ``upload_ended`` and ``offset_mismatch``,
    Invalid ``too_many_parts``.
    """
    require(upload.by, Action.UPLOAD, upload.project)
    with transaction.atomic():
        arriving = Upload.objects.select_for_update(skip_locked=True).filter(id=upload.id).first()
        if arriving is None:
            if Upload.objects.filter(id=upload.id).exists():
                raise Busy("Another part of the upload is just being stored.")
            raise NotFound("There is no such upload.")
        left = _left_to_come(arriving, offset=offset)
        key = part_key(arriving.blob_key(0), offset=offset)
        size = storage.put_chunks(key, _checked(chunks, at_most=left, checksum=checksum))
        if size == 0:
            storage.delete(key)
            return arriving
        arriving.part_sizes.append(size)
        arriving.size_bytes += size
        arriving.blob_count = 1 if size == left else 0
        arriving.heartbeat_at = timezone.now()
        arriving.save(update_fields=["part_sizes", "size_bytes", "blob_count", "heartbeat_at"])
        if size == left:
            services.end_upload(arriving)
    return arriving


def discard(upload: Upload, *, by: User) -> None:
    """Cancel a transfer; its bytes go at once. Raises Conflict ``upload_ended``."""
    require(by, Action.UPLOAD, upload.project)
    with transaction.atomic():
        arriving = Upload.objects.select_for_update().filter(id=upload.id).first()
        if arriving is None:
            raise NotFound("There is no such upload.")
        if arriving.state != JobState.ARRIVING:
            raise Conflict("The upload has ended already.", code="upload_ended")
        # Nothing is appended from here on, and the sweep removes what this process may not.
        jobs.fail(arriving, code=expiry.CANCELLED, message="It was cancelled.")
        audit.upload_discarded(
            arriving.id,
            arriving.project_id,
            by=by,
            bytes=arriving.size_bytes,
            reason=expiry.CANCELLED,
        )
        live.tell(arriving.project_id, "upload", id=arriving.id, state=str(arriving.state))
    expiry.remove(arriving)


def refuse_if_gone(upload: Upload) -> None:
    """Raises Gone for what expired, also where the sweep has not been there yet."""
    forgotten = upload.state == JobState.ARRIVING and expiry.expires_at(upload) <= timezone.now()
    if forgotten or upload.error_code in (expiry.EXPIRED, expiry.CANCELLED):
        raise Gone("The upload was not finished in time, and its bytes are gone; begin anew.")


def _left_to_come(upload: Upload, *, offset: int) -> int:
    assert upload.expected_bytes is not None, "a transfer has a length"
    refuse_if_gone(upload)
    if offset != upload.size_bytes:
        raise Conflict(
            f"The next part begins at byte {upload.size_bytes}.",
            code="offset_mismatch",
            offset=upload.size_bytes,
        )
    if upload.state != JobState.ARRIVING:
        raise Conflict("The upload has ended already.", code="upload_ended")
    if len(upload.part_sizes) >= MAX_PARTS:
        raise Invalid(f"An upload has at most {MAX_PARTS} parts.", code="too_many_parts")
    return upload.expected_bytes - upload.size_bytes


def _checked(
    chunks: Iterator[bytes], *, at_most: int, checksum: Checksum | None
) -> Iterator[bytes]:
    size = 0
    sum_of_all = hashlib.new(checksum.algorithm) if checksum else None
    for chunk in chunks:
        size += len(chunk)
        if size > at_most:
            raise TooMuch(f"Of the upload only {at_most} bytes were to come.")
        if sum_of_all is not None:
            sum_of_all.update(chunk)
        yield chunk
    if checksum and sum_of_all and not hmac.compare_digest(sum_of_all.digest(), checksum.digest):
        raise WrongChecksum("The part has changed on its way; send it again.")
