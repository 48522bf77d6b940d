"""An upload becomes studies: read, de-identify, decode, store, then one transaction per study.

Each file is read once, in a process of its own (reader.py). Safe to run again after being killed
anywhere: what a study is called and where its pixels lie follows from the upload and the files'
UIDs, so a second run writes the same objects, and what was committed is recognised. Two uploads
never write to the same place, whatever UIDs they bring: which of them has a study first is decided
when it is committed, and the other starts with that study anew. One bad file never fails the
others; of a series with a bad image nothing goes in, so that half of it is never shown as whole.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from django.db import transaction
from django.db.models import Max

from delineate import jobs, live, storage
from delineate.audit import log as audit
from delineate.projects import escrow
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.studies import encoding, references, selectors
from delineate.studies.archive import Archive, Entry, Refused
from delineate.studies.joining import StoredFrame, StoredInstance, join_series
from delineate.studies.keeping import Keeping
from delineate.studies.mapping import Mapping, is_mapping
from delineate.studies.models import (
    Instance,
    Quarantine,
    SealedOriginal,
    Slice,
    Study,
    Subject,
    Upload,
)
from delineate.studies.originals import together
from delineate.studies.parts import open_blob
from delineate.studies.reader import Begun, ReadFrame, Reading, Wanted, readers
from delineate.studies.reading import Whose
from delineate.studies.references import StoredReference
from mlworker.contract.artifacts import array_digest, pack_array, pixels_key, study_prefix

logger = logging.getLogger(__name__)

# Bytes of a file that is read while the one before it is stored.
READ_AHEAD_AT_MOST: Final = 64 * 1024**2
# Of each slice, for the percentiles that stand in for a missing window.
SAMPLED_PIXELS: Final = 4096
HELD_SENTENCE: Final = (
    "It may show a name in its pixels: it is in quarantine until a project lead has looked at it."
)
_UID_CONFLICT: Final = "Another image with the same SOP Instance UID is there already."
# Each time somebody else has committed or deleted the same study: more is not by chance.
MAX_STARTS_OF_A_STUDY: Final = 5


@dataclass
class _Series:
    """What an upload brings of a series, its frames stored."""

    is_there: bool  # the project has some of it
    entries: list[Entry] = field(default_factory=list)
    instances: dict[str, StoredInstance] = field(default_factory=dict)  # by our UIDs
    failed: int = 0  # of its images

    def take_back(self, keeping: Keeping) -> None:
        """Remove the pixels of what does not go in."""
        for instance in self.instances.values():
            for frame in instance.frames:
                keeping.delete(frame.key)
        self.instances = {}


@dataclass
class _Gathered:
    """What an upload brings of a study, and the study's row as it was then."""

    uid: str
    id: uuid.UUID
    row: Study | None
    series: dict[str, _Series] = field(default_factory=dict)
    # By our UIDs.
    references: dict[tuple[str, str], StoredReference] = field(default_factory=dict)
    reference_entries: list[Entry] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # the pseudonyms that files name
    unnamed: str = ""  # who the first of the others is of

    @property
    def entries(self) -> list[Entry]:
        """Every file, in the order they are in the upload."""
        entries = [entry for series in self.series.values() for entry in series.entries]
        return sorted([*entries, *self.reference_entries], key=lambda entry: entry.number)

    @property
    def subject(self) -> str:
        """A file that names nobody is taken at its study's word."""
        return next(iter(self.named), self.unnamed)

    def take_back(self, keeping: Keeping) -> None:
        """Remove the pixels of what does not go in."""
        for series in self.series.values():
            series.take_back(keeping)
        for reference in self.references.values():
            reference.take_back()
        self.references = {}


def ingest(upload_id: uuid.UUID) -> None:
    """Run an upload's job; returns quietly when it is gone, done, or alive in other hands."""
    upload = jobs.claim(Upload, upload_id)
    if upload is None:
        _clear_if_ended(upload_id)
        return
    try:
        _Run(upload).to_the_end()
    except jobs.TakenOver:
        logger.info("Upload %s was taken over by another attempt", upload_id)


def _clear_if_ended(upload_id: uuid.UUID) -> None:
    """The bytes, which name patients, go also where the last attempt died before they went."""
    upload = Upload.objects.filter(id=upload_id).first()
    if upload is not None and upload.state in (jobs.JobState.DONE, jobs.JobState.FAILED):
        storage.delete_prefix(upload.blob_prefix)


class _Run:
    """One attempt at an upload."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._project: Project = upload.project
        self._wanted = Wanted(
            key=bytes(self._project.pseudonym_key),
            policy=self._project.privacy,
            with_originals=self._project.has_escrow,
        )
        self._archive = Archive(
            [
                partial(open_blob, upload.blob_key(n), part_sizes=upload.part_sizes)
                for n in range(upload.blob_count)
            ],
            names=_names_of(upload),
        )
        self._mappings: dict[int, Mapping] = {}  # by the file's number
        self._report: dict[int, dict[str, object]] = {}
        self._read: set[int] = set()  # files, by number
        # Slices of an attempt before this one, by the first of each image.
        self._committed_before: set[uuid.UUID] = set()
        self._pulse = jobs.Pulse(upload, self._note_progress)
        self._keeping = Keeping()

    def to_the_end(self) -> None:
        if not self._upload.report:  # else an attempt before this one came that far
            with self._archive, self._keeping:
                self._ingest_all()
            self._save_report()
        # Before the last word: a job that has ended well keeps no bytes that name patients.
        storage.delete_prefix(self._upload.blob_prefix)
        self._end()

    def _ingest_all(self) -> None:
        entries = list(self._archive.entries())
        self._upload.files_total = len(entries)
        self._read_mappings(entries)
        studies = self._gather(entries)
        for entry in entries:
            if (read := self._mappings.get(entry.number)) is not None:
                self._settle(entry, *read.verdict())  # asked about every file by now
        for study in studies.values():
            self._ingest_study(study)

    def _read_mappings(self, entries: list[Entry]) -> None:
        for entry in entries:
            if not is_mapping(entry.name) or entry.is_litter:
                continue
            try:
                if entry.refusal is not None:
                    raise entry.refusal
                self._mappings[entry.number] = Mapping(self._archive.read(entry), name=entry.name)
            except Refused as refused:
                self._settle(entry, "refused", refused.code, refused.message)

    def _gather(self, entries: Iterable[Entry]) -> dict[str, _Gathered]:
        """Read files and store their frames, by study."""
        studies: dict[str, _Gathered] = {}
        files: list[Entry] = []
        for entry in entries:
            if entry.is_litter:
                self._settle(
                    entry, "skipped", "litter", "Left by an operating system; not an image."
                )
            elif not is_mapping(entry.name):
                files.append(entry)
        for entry, begun in self._one_ahead(files):
            self._take(entry, begun, studies)
            self._pulse.beat()
        return studies

    def _one_ahead(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Begun | Refused]]:
        """Files that are being read, each begun before the one ahead of it is taken.

        A large one is alone: two would hold twice the memory.
        """
        ahead: list[tuple[Entry, Begun | Refused]] = []
        for entry in entries:
            data = self._bytes_of(entry)
            is_large = isinstance(data, bytes) and len(data) > READ_AHEAD_AT_MOST
            if is_large:
                yield from ahead
                ahead = []
            begun = data if isinstance(data, Refused) else self._begin(entry, data)
            del data
            yield from ahead
            ahead = [(entry, begun)]
            if is_large:
                yield from ahead
                ahead = []
        yield from ahead

    def _bytes_of(self, entry: Entry) -> bytes | Refused:
        try:
            return self._archive.read(entry) if entry.refusal is None else entry.refusal
        except Refused as refused:
            return refused

    def _begin(self, entry: Entry, data: bytes) -> Begun | Refused:
        try:
            whose = self._whose(entry)
            return readers().next().begin(data, self._wanted, whose=whose, alive=self._pulse.beat)
        except Refused as refused:
            return refused

    def _take(self, entry: Entry, begun: Begun | Refused, studies: dict[str, _Gathered]) -> None:
        try:
            if isinstance(begun, Refused):
                raise begun
            reading = begun.described()
        except Refused as refused:
            fate = "skipped" if refused.code == "directory" else "refused"
            self._settle(entry, fate, refused.code, refused.message)
            return
        described = reading.described
        study = studies.get(described.study_uid)
        if study is None:
            study = studies[described.study_uid] = self._study(described.study_uid)
        if described.is_named:
            study.named.add(described.subject)
        else:
            study.unnamed = study.unnamed or described.subject
        if described.is_reference:
            self._take_reference(entry, reading, study)
            return
        series = study.series.get(described.series_uid)
        if series is None:
            is_there = study.row is not None and (
                study.row.series.filter(series_uid=described.series_uid).exists()
            )
            series = study.series[described.series_uid] = _Series(is_there)
        series.entries.append(entry)
        try:
            self._take_image(entry, reading, study, series)
        except Refused as refused:
            series.failed += 1
            self._settle(entry, "refused", refused.code, refused.message)
        self._read.add(entry.number)

    def _study(self, uid: str) -> _Gathered:
        row = self._project.studies.select_related("subject").filter(study_uid=uid).first()
        return _Gathered(uid, row.id if row else uuid.uuid5(self._upload.id, uid), row)

    def _whose(self, entry: Entry) -> Whose:
        """What the upload says of a file's patient; raises Refused ``mapping_conflict``."""
        said = [mapping.subject_of(entry.name) for mapping in self._mappings.values()]
        # Of who names nobody, what lies in one folder is of one patient.
        folder = f"folder\0{self._upload.id}\0{entry.folder}" if entry.folder else None
        return Whose(
            mapped=frozenset(subject for subject in said if subject is not None), unnamed=folder
        )

    def _take_image(
        self, entry: Entry, reading: Reading, study: _Gathered, series: _Series
    ) -> None:
        described = reading.described
        twin = series.instances.get(described.sop_uid)
        there = self._slices_of(reading, study) if series.is_there else []
        if twin is not None or there:
            # Not stored: it would lie where its twin's pixels lie.
            digests = [array_digest(frame.pixels) for frame in reading.frames()]
            self._settle_twin(entry, digests, twin=twin, there=there, reading=reading)
            return
        frames: list[StoredFrame] = []
        try:
            for frame in reading.frames():
                slice_id = self._slice_id(reading, frame=frame.head.number)
                frames.append(self._store_frame(study.id, slice_id, frame))
                self._pulse.beat()
        except Refused:
            for stored in frames:
                self._keeping.delete(stored.key)
            raise
        series.instances[described.sop_uid] = StoredInstance(
            entry, described.sop_uid, reading.end, tuple(frames), described.place
        )

    def _store_frame(
        self, study_id: uuid.UUID, slice_id: uuid.UUID, frame: ReadFrame
    ) -> StoredFrame:
        key = pixels_key(str(study_id), str(slice_id))
        self._keeping.put(key, pack_array(frame.pixels))
        return _stored_frame(key, slice_id, frame)

    def _take_reference(self, entry: Entry, reading: Reading, study: _Gathered) -> None:
        described = reading.described
        study.reference_entries.append(entry)
        self._read.add(entry.number)
        try:
            read = reading.reference()
        except Refused as refused:
            self._settle(entry, "refused", refused.code, refused.message)
            return
        id = references.id_of(self._upload.id, described)
        named = (described.series_uid, described.sop_uid)
        twin = study.references.get(named)
        there = None if study.row is None else references.there_is(study.id, described)
        known = twin or there
        if known is None:
            study.references[named] = references.store(
                entry, described, read, id=id, study_id=study.id
            )
        elif references.digest_of(read) != known.digest:
            self._settle(entry, "refused", "uid_conflict", _UID_CONFLICT)
        elif known is there and there.id == id and id not in self._committed_before:
            # By an attempt at this very upload that was cut off later on.
            self._committed_before.add(id)
            self._settle_reference(entry, there.sop_class_uid, is_held=there.is_held)
        else:
            self._settle(entry, "duplicate", "duplicate", "The same object is there already.")

    def _slices_of(self, reading: Reading, study: _Gathered) -> list[Slice]:
        return list(
            Slice.objects.filter(
                instance__sop_instance_uid=reading.described.sop_uid,
                series__series_uid=reading.described.series_uid,
                series__study=study.id,
            ).order_by("frame_number")
        )

    def _slice_id(self, reading: Reading, *, frame: int) -> uuid.UUID:
        """Equal in every attempt; with the series, as some devices repeat image UIDs in each."""
        described = reading.described
        return uuid.uuid5(self._upload.id, f"{described.series_uid}/{described.sop_uid}/{frame}")

    def _settle_twin(
        self,
        entry: Entry,
        digests: list[str],
        *,
        twin: StoredInstance | None,
        there: list[Slice],
        reading: Reading,
    ) -> None:
        known = twin.digests if twin else [slice_.digest_as_sent for slice_ in there]
        if digests != known:
            self._settle(entry, "refused", "uid_conflict", _UID_CONFLICT)
            return
        first_id = self._slice_id(reading, frame=1)
        if twin is None and first_id == there[0].id and first_id not in self._committed_before:
            # By an attempt at this very upload that was cut off later on.
            self._committed_before.add(first_id)
            self._settle_stored(entry, is_held=there[0].series.quarantine == Quarantine.HELD)
        else:
            self._settle(entry, "duplicate", "duplicate", "The same image is there already.")

    def _ingest_study(self, study: _Gathered) -> None:
        entries = study.entries
        for _ in range(MAX_STARTS_OF_A_STUDY):
            self._refuse_incomplete(study)
            if len(self._subjects_named_in(study)) > 1:
                self._refuse_all(
                    study, "study_mixed_patients", "The study's files name different patients."
                )
            if self._is_erased(study):
                self._refuse_all(
                    study, "subject_erased", "Its subject was erased from the project for good."
                )
            if self._commit(study):
                break
            study.take_back(self._keeping)
            study = self._gather(entries)[study.uid]
        else:
            self._refuse_all(
                study, "study_busy", "Others kept changing the study meanwhile; upload it again."
            )
        if self._upload.attempt > 1:
            storage.delete_unfinished(
                study_prefix(str(study.id)), older_than_s=jobs.SILENT_AFTER.total_seconds()
            )

    def _is_erased(self, study: _Gathered) -> bool:
        return selectors.is_erased(self._project, subject=study.subject, study_uid=study.uid)

    def _subjects_named_in(self, study: _Gathered) -> set[str]:
        """As they are now: some may have been merged since the files were read."""
        return {selectors.surviving(self._project, pseudonym) for pseudonym in study.named}

    def _refuse_incomplete(self, study: _Gathered) -> None:
        for series in study.series.values():
            if series.failed:
                self._refuse(
                    series,
                    "series_incomplete",
                    f"{series.failed} of the series' {len(series.entries)} images could not be "
                    "read; a series goes in whole or not at all.",
                )

    def _commit(self, study: _Gathered) -> bool:
        """Make the rows; False, and nothing made, when somebody has changed the study meanwhile."""
        self._keeping.wait()
        with transaction.atomic():
            lock(self._project.id)
            jobs.sign_of_life(self._upload)
            found = (
                self._project.studies.select_for_update(no_key=True)
                .filter(study_uid=study.uid)
                .first()
            )
            if (found is None) != (study.row is None) or (
                found is not None and found.id != study.id
            ):
                return False
            if found and self._subjects_named_in(study) - {found.subject.pseudonym}:
                self._refuse_all(
                    study, "study_mixed_patients", "The study is there for another patient."
                )
            joining = {uid: series for uid, series in study.series.items() if series.instances}
            kept = list(study.references.values())
            if self._is_erased(study) and (joining or kept):
                return False
            if not joining and not kept:
                return True
            if found is not None and (
                _have_come_meanwhile(found, joining) or references.have_come_meanwhile(found, kept)
            ):
                return False
            row = found or self._new_study(study)
            references.keep(row, kept)
            self._join(row, joining, kept)
        for series in joining.values():
            held = _held(study.id, list(series.instances))
            for uid, instance in series.instances.items():
                self._settle_stored(instance.entry, is_held=uid in held)
        for reference in kept:
            head = reference.head
            self._settle_reference(reference.entry, head.sop_class_uid, is_held=head.is_held)
        return True

    def _join(self, study: Study, joining: dict[str, _Series], kept: list[StoredReference]) -> None:
        slices: list[Slice] = []
        for uid, series in joining.items():
            try:
                slices += join_series(study, uid, list(series.instances.values()))
            except Refused as refused:
                self._refuse(series, refused.code, refused.message)
        if not slices and not kept:
            return
        self._seal(study, joining, kept)
        audit.study_ingested(
            self._project.id,
            study.id,
            self._upload.id,
            series=sum(bool(series.instances) for series in joining.values()),
            slices=len(slices),
            references=len(kept),
        )
        live.tell(self._project.id, "studies", id=study.id)
        encoding.prepare(self._project, [slice_.id for slice_ in slices])

    def _seal(self, study: Study, joined: dict[str, _Series], kept: list[StoredReference]) -> None:
        """Where the project has escrow: nothing readable of who the patient is remains."""
        key = self._project.escrow_public_key
        ends = [one.end for series in joined.values() for one in series.instances.values()]
        said = [end.original for end in ends] + [each.head.original for each in kept]
        originals = [original for original in said if original is not None]
        if key is not None and originals:
            content = together(originals).model_dump_json().encode()
            sealed = escrow.seal(content, public_key=bytes(key))
            SealedOriginal.objects.create(study=study, sealed=sealed)

    def _new_study(self, study: _Gathered) -> Study:
        # Anew: it may have been merged since.
        pseudonym = selectors.surviving(self._project, study.subject)
        last = self._project.studies.aggregate(last=Max("number"))["last"]
        return Study.objects.create(
            id=study.id,
            project=self._project,
            subject=Subject.objects.get_or_create(project=self._project, pseudonym=pseudonym)[0],
            upload=self._upload,
            number=(last or 0) + 1,
            study_uid=study.uid,
        )

    def _save_report(self) -> None:
        with transaction.atomic():
            jobs.sign_of_life(self._upload)
            self._save_progress()
            self._upload.report = [self._report[number] for number in sorted(self._report)]
            self._upload.save(update_fields=["report"])

    def _end(self) -> None:
        with transaction.atomic():
            jobs.finish(self._upload)
            self._tell()

    def _refuse_all(self, study: _Gathered, code: str, message: str) -> None:
        for entry in study.entries:
            self._settle(entry, "refused", code, message)
        study.take_back(self._keeping)

    def _refuse(self, series: _Series, code: str, message: str) -> None:
        for entry in series.entries:
            self._settle(entry, "refused", code, message)
        series.take_back(self._keeping)

    def _settle_reference(self, entry: Entry, sop_class_uid: str, *, is_held: bool) -> None:
        sentence = references.sentence_of(sop_class_uid, is_held=is_held)
        self._settle(entry, "stored", "kept_as_reference", sentence)

    def _settle_stored(self, entry: Entry, *, is_held: bool) -> None:
        note = ("in_quarantine", HELD_SENTENCE) if is_held else ("", "")
        self._settle(entry, "stored", *note)

    def _settle(self, entry: Entry, fate: str, code: str, message: str) -> None:
        self._report.setdefault(
            entry.number, {"file": entry.number, "fate": fate, "code": code, "message": message}
        )

    def _note_progress(self) -> None:
        self._save_progress()
        self._tell()

    def _save_progress(self) -> None:
        self._upload.files_done = len(self._read | self._report.keys())
        self._upload.save(update_fields=["files_total", "files_done"])

    def _tell(self) -> None:
        live.tell(
            self._project.id,
            "upload",
            id=self._upload.id,
            state=str(self._upload.state),
            files_total=self._upload.files_total,
            files_done=self._upload.files_done,
        )


def _names_of(upload: Upload) -> dict[int, str]:
    """What the sender calls the blobs, as far as that was kept."""
    keys = set(storage.list_keys(upload.blob_prefix))
    return {
        number: storage.get(upload.name_key(number)).decode(errors="replace")
        for number in range(upload.blob_count)
        if upload.name_key(number) in keys
    }


def _held(study_id: uuid.UUID, sop_uids: list[str]) -> set[str]:
    """Of a study's images, those that lie in a series that is held."""
    held = Instance.objects.filter(
        series__study=study_id,
        series__quarantine=Quarantine.HELD,
        sop_instance_uid__in=sop_uids,
    )
    return set(held.values_list("sop_instance_uid", flat=True))


def _have_come_meanwhile(study: Study, joining: dict[str, _Series]) -> bool:
    return any(
        study.series.filter(
            series_uid=uid, instances__sop_instance_uid__in=list(series.instances)
        ).exists()
        for uid, series in joining.items()
    )


def _stored_frame(key: str, slice_id: uuid.UUID, frame: ReadFrame) -> StoredFrame:
    head, values = frame.head, frame.head.values
    flat = frame.pixels.reshape(-1)
    sampled = flat[:: max(1, flat.size // SAMPLED_PIXELS)].astype(np.float32)
    return StoredFrame(
        slice_id=slice_id,
        number=head.number,
        key=key,
        digest=array_digest(frame.pixels),
        placed=head.placed,
        values=values,
        sample=sampled * np.float32(values.slope) + np.float32(values.intercept),
    )
