"""An export's zip: written series by series, read back, compared, stored, and only then done.

Safe to run again after being killed anywhere: nothing counts before the last transaction, and each
attempt stores under a key of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import IO, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from django.db import transaction
from django.db.models import QuerySet

from delineate import jobs, live, storage
from delineate.annotation.models import Task
from delineate.audit import log as audit
from delineate.errors import Conflict, DelineateError
from delineate.exports import selectors, verify
from delineate.exports.delineation import CannotBeWritten, Delineation, File
from delineate.exports.models import Export, Format
from delineate.exports.verify import VerificationFailed
from delineate.exports.writers import dicom_seg, nifti, png, provenance
from delineate.jobs import JobState
from delineate.studies.models import Study

logger = logging.getLogger(__name__)

NAMED_AT_MOST: Final = 10  # series in a refusal
MANIFEST: Final = "manifest.json"
MANIFEST_VERSION: Final = 1
COMPRESSED_ALREADY: Final = frozenset({".gz", ".png"})
# Equal masks give equal bytes: the archive remembers no hour.
NO_TIME: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class _Kind:
    """How a format is written and how what was written is read back."""

    write: Callable[[Delineation], Iterator[File]]
    check: verify.Check


_KINDS: Final[Mapping[Format, _Kind]] = MappingProxyType(
    {
        Format.NIFTI: _Kind(nifti.write_masks, verify.check_masks),
        Format.NIFTI_LABEL_MAP: _Kind(nifti.write_label_maps, verify.check_label_map),
        Format.PNG: _Kind(png.write_masks, verify.check_png),
        Format.DICOM_SEG: _Kind(dicom_seg.write_segmentations, verify.check_segmentation),
    }
)


def member_line(path: str, data: bytes) -> dict[str, object]:
    """What the manifest says of a file."""
    return {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def build(export_id: uuid.UUID) -> None:
    """Run an export's job; returns quietly when it is gone, ended, or alive in other hands."""
    export = jobs.claim(Export, export_id)
    if export is None:
        return
    try:
        _Run(export).to_the_end()
    except jobs.TakenOver:
        logger.info("Export %s was taken over by another attempt", export_id)
    except DelineateError as refusal:
        logger.info("Export %s was refused: %s", export_id, refusal.code)
        _refuse(export, refusal)


def withdraw_outdated() -> None:
    """Remove the files of exports that hold masks of a study deleted since."""
    done = list(Export.objects.filter(state=JobState.DONE))
    deleted = selectors.deleted_studies(done)
    for export in done:
        if deleted.isdisjoint(export.study_ids):
            continue
        # Before the word: a sweep that is cut off between them does it again.
        storage.delete_prefix(export.file_prefix)
        with transaction.atomic():
            jobs.fail(
                export,
                code="study_deleted",
                message="A study in this export has been deleted; export again.",
            )
            _tell(export)


class _Run:
    """One attempt at an export."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._kind = _KINDS[Format(export.format)]
        self._members: list[dict[str, object]] = []
        self._study_ids: set[uuid.UUID] = set()
        self._series = self._masks = 0
        self._pulse = jobs.Pulse(export, self._note_progress)

    def to_the_end(self) -> None:
        tasks = list(self._tasks().values_list("pk", flat=True))
        self._export.series_total, self._export.series_done = len(tasks), 0
        self._pulse.beat()
        with tempfile.TemporaryFile() as file:
            with ZipFile(file, "w") as archive:
                self._write_all(archive, tasks)
                self._write_manifest(archive)
            _check_archive(file)
            self._export.digest = digest_of(file)
            self._store(file)
        self._finish()

    def _tasks(self) -> QuerySet[Task]:
        return selectors.tasks_with_masks(
            self._export.project, reviewed_only=self._export.reviewed_only
        )

    def _write_all(self, archive: ZipFile, tasks: list[uuid.UUID]) -> None:
        refusals: list[CannotBeWritten] = []
        for pk in tasks:
            # Asked anew: since the beginning it may have been reopened, or deleted with its study.
            delineation = selectors.delineation_of(pk, among=self._tasks())
            if delineation is not None:
                try:
                    self._write_series(archive, delineation)
                except CannotBeWritten as refusal:
                    refusals.append(refusal)
            self._export.series_done += 1
            self._pulse.beat()
        if refusals:
            raise _all_in_one(refusals)
        if not self._masks:
            raise Conflict("There are no accepted masks any more.", code="nothing_to_export")

    def _write_series(self, archive: ZipFile, delineation: Delineation) -> None:
        held: list[File] = []
        for file in self._kind.write(delineation):
            self._kind.check(file, delineation)
            self._add(archive, f"{delineation.folder}/{file.name}", file.data)
            held.append(file.without_data())
            self._pulse.beat()
        verify.check_complete(held, delineation)
        certificate = provenance.write_provenance(delineation, files=held)
        self._add(archive, f"{delineation.folder}/{certificate.name}", certificate.data)
        self._series += 1
        self._masks += len(delineation.masks)
        self._study_ids.add(delineation.study_id)

    def _add(self, archive: ZipFile, path: str, data: bytes) -> None:
        add_member(archive, path, data)
        self._members.append(member_line(path, data))

    def _write_manifest(self, archive: ZipFile) -> None:
        content = {
            "version": MANIFEST_VERSION,
            "export": str(self._export.id),
            "project": str(self._export.project_id),
            "format": self._export.format,
            "reviewed_only": self._export.reviewed_only,
            "requested_at": self._export.created_at.isoformat(),
            "series": self._series,
            "masks": self._masks,
            "members": self._members,
        }
        add_member(archive, MANIFEST, json.dumps(content, indent=1).encode())

    def _store(self, file: IO[bytes]) -> None:
        self._pulse.beat()
        file.seek(0)
        chunks = iter(partial(file.read, storage.CHUNK_BYTES), b"")
        self._export.size_bytes = storage.put_chunks(self._export.file_key, chunks)
        with closing(storage.open_for_reading(self._export.file_key)) as stored:
            if digest_of(stored) != self._export.digest:
                raise VerificationFailed("The stored file differs from the one that was written.")

    def _finish(self) -> None:
        export = self._export
        with transaction.atomic():
            # Locked: a study that is deleted from here on finds this export done and withdraws it.
            present = Study.objects.select_for_update(no_key=True).filter(id__in=self._study_ids)
            if len(present) < len(self._study_ids):
                raise Conflict(
                    "A study was deleted while it was exported; export again.",
                    code="study_deleted",
                )
            export.study_ids = sorted(self._study_ids)
            jobs.finish(export)
            export.save(
                update_fields=["study_ids", "series_total", "series_done", "size_bytes", "digest"]
            )
            audit.export_finished(
                export.project_id,
                export.id,
                series=self._series,
                masks=self._masks,
                bytes=export.size_bytes,
                digest=export.digest,
            )
            _tell(export)

    def _note_progress(self) -> None:
        self._export.save(update_fields=["series_total", "series_done"])
        _tell(self._export)


def _refuse(export: Export, refusal: DelineateError) -> None:
    jobs.refuse(export, refusal, tell=partial(_tell, export))
    storage.delete(export.file_key)


def _all_in_one(refusals: list[CannotBeWritten]) -> CannotBeWritten:
    sentences = [refusal.sentence for refusal in refusals[:NAMED_AT_MOST]]
    if len(refusals) > NAMED_AT_MOST:
        sentences.append(f"So it is with {len(refusals) - NAMED_AT_MOST} more series.")
    return CannotBeWritten(" ".join(sentences), code=refusals[0].code)


def add_member(archive: ZipFile, path: str, data: bytes) -> None:
    """Write a file into an export's zip."""
    member = ZipInfo(path, date_time=NO_TIME)
    compressed = PurePosixPath(path).suffix in COMPRESSED_ALREADY
    member.compress_type = ZIP_STORED if compressed else ZIP_DEFLATED
    archive.writestr(member, data)


def _check_archive(file: IO[bytes]) -> None:
    """Read the archive back: every member is there, once, with the bytes the manifest says."""
    with ZipFile(file) as archive:
        members = json.loads(archive.read(MANIFEST))["members"]
        expected = {member["path"]: member["sha256"] for member in members}
        if sorted([*expected, MANIFEST]) != sorted(archive.namelist()):
            raise VerificationFailed("The archive and its manifest name different files.")
        for path, digest in expected.items():
            with archive.open(path) as member:
                if digest_of(member) != digest:
                    raise VerificationFailed(f"{path} differs from what was written.")


def digest_of(file: IO[bytes]) -> str:
    """SHA-256 of a file from its beginning."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _tell(export: Export) -> None:
    live.tell(
        export.project_id,
        "export",
        id=export.id,
        state=str(export.state),
        series_done=export.series_done,
        series_total=export.series_total,
    )
