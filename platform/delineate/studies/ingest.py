"""An upload becomes studies: read, de-identify, decode, store, then one transaction per study.

Safe to run again after being killed anywhere: what a study is called and where its pixels lie
follows from the upload and the files' UIDs, so a second run writes the same objects, and a study
that was committed is recognised. Two uploads never write to the same place, whatever UIDs they
bring: which of them has a study first is decided when it is committed, and the other starts with
that study anew. One bad file never fails the others; a series with a bad image is refused as a
whole, so that half a study is never shown as one.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final

import numpy as np
from django.db import transaction
from django.db.models import Max, QuerySet
from pydicom import Dataset

from delineate import jobs, live, storage
from delineate.audit import log as audit
from delineate.projects.models import Project
from delineate.registry.selectors import active_digest
from delineate.studies import (
    deidentify,
    encoding,
    geometry,
    pictures,
    pixels,
    selectors,
    volumes,
)
from delineate.studies.archive import Archive, Entry, Refused
from delineate.studies.geometry import Oddity, Placed
from delineate.studies.mapping import Mapping, is_mapping
from delineate.studies.models import Instance, Series, Slice, Study, Subject, Upload
from delineate.studies.pixels import Frame, Geometry, Values
from delineate.studies.volumes import NiftiPlace, Volume
from mlworker.contract import broker
from mlworker.contract.artifacts import array_digest, pack_array, pixels_key, study_prefix

logger = logging.getLogger(__name__)

TELL_EVERY_S: Final = 0.5
# Of each slice, for the percentiles that stand in for a missing window.
SAMPLED_PIXELS: Final = 4096
WINDOW_PERCENTILES: Final = (0.5, 99.5)
# Attributes that tell images at one place apart, the most telling first.
TELLS_APART: Final = (
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "InversionTime",
    "RepetitionTime",
    "FlipAngle",
    "KVP",
)
# Each time somebody else has committed or deleted the same study: more is not by chance.
MAX_STARTS_OF_A_STUDY: Final = 5


@dataclass(frozen=True)
class _Scanned:
    """What the first look at a file tells; UIDs are already ours."""

    entry: Entry
    subject: str  # pseudonym
    study_uid: str
    series_uid: str
    sop_uid: str
    is_named: bool  # the header says who the patient is


@dataclass
class _StoredFrame:
    """A decoded frame that lies in the object store."""

    slice_id: uuid.UUID
    number: int
    key: str
    digest: str
    geometry: Geometry
    values: Values
    shape: tuple[int, ...]
    sample: np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass
class _StoredInstance:
    entry: Entry
    sop_uid: str
    header: Dataset
    frames: list[_StoredFrame]
    place: NiftiPlace | None


_Pair = tuple[_StoredInstance, _StoredFrame]


@dataclass
class _ReadySeries:
    """One volume of a DICOM series, ``volume`` of 1, 2, …, its frames in order."""

    uid: str
    volume: int
    ordered: list[_Pair]
    slice_spacing_mm: float | None
    oddities: tuple[Oddity, ...]

    @property
    def instances(self) -> list[_StoredInstance]:
        """Those with a frame in it, in order of their first."""
        return list({id(instance): instance for instance, _ in self.ordered}.values())


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
        self._key = bytes(self._project.pseudonym_key)
        self._archive = Archive(
            [partial(_open_blob, upload.blob_key(n)) for n in range(upload.blob_count)],
            names=_names_of(upload),
        )
        self._mappings: dict[int, Mapping] = {}  # by the file's number
        self._report: dict[int, dict[str, object]] = {}
        self._decoded: set[int] = set()  # files, by number
        self._told_at = 0.0

    def to_the_end(self) -> None:
        if not self._upload.report:  # else an attempt before this one came that far
            with self._archive:
                self._ingest_all()
            self._save_report()
        # Before the last word: a job that has ended well keeps no bytes that name patients.
        storage.delete_prefix(self._upload.blob_prefix)
        self._end()

    def _ingest_all(self) -> None:
        by_study: dict[str, dict[str, list[_Scanned]]] = defaultdict(lambda: defaultdict(list))
        entries = list(self._archive.entries())
        self._upload.files_total = len(entries)
        self._read_mappings(entries)
        for entry in entries:
            if entry.is_litter:
                self._settle(
                    entry, "skipped", "litter", "Left by an operating system; not an image."
                )
            elif is_mapping(entry.name):
                continue  # settled when it has been asked about every other
            elif (scanned := self._scan(entry)) is not None:
                by_study[scanned.study_uid][scanned.series_uid].append(scanned)
            self._sign_of_life()
        for entry in entries:
            if (read := self._mappings.get(entry.number)) is not None:
                self._settle(entry, *read.verdict())
        for study_uid, by_series in by_study.items():
            self._ingest_study(study_uid, by_series)

    def _scan(self, entry: Entry) -> _Scanned | None:
        try:
            if entry.refusal is not None:
                raise entry.refusal
            dataset = self._read(entry).dataset
            pixels.check_kind(dataset)
            identity = self._identity_of(dataset, entry)
        except Refused as refused:
            fate = "skipped" if refused.code == "directory" else "refused"
            self._settle(entry, fate, refused.code, refused.message)
            return None
        # Of who names nobody, what lies in one folder is of one patient, and else each study of its
        # own: two patients in one would let what is learnt judge itself.
        lies_in = entry.folder or dataset.StudyInstanceUID
        folder = f"folder\0{self._upload.id}\0{lies_in}"
        return _Scanned(
            entry=entry,
            is_named=identity is not None,
            subject=deidentify.pseudonym(identity or folder, key=self._key),
            study_uid=deidentify.replace_uid(str(dataset.StudyInstanceUID), key=self._key),
            series_uid=deidentify.replace_uid(str(dataset.SeriesInstanceUID), key=self._key),
            sop_uid=deidentify.replace_uid(str(dataset.SOPInstanceUID), key=self._key),
        )

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

    def _identity_of(self, dataset: Dataset, entry: Entry) -> str | None:
        """Who the file itself names, else whom the upload's mappings name; raises Refused."""
        own = deidentify.identity_of(dataset)
        said = (mapping.subject_of(entry.name) for mapping in self._mappings.values())
        mapped = {subject for subject in said if subject is not None}
        if not mapped:
            return own
        if own is not None and not deidentify.is_placeholder(dataset):
            if not deidentify.names(dataset).issuperset(mapped):
                raise Refused(
                    "mapping_conflict",
                    "The file names another patient than subjects.csv does: take it out there, "
                    "and merge the two subjects afterwards if they are one.",
                )
            return own
        if len(mapped) > 1:
            raise Refused("mapping_conflict", "Two mappings name different subjects for the file.")
        return deidentify.identity_named(mapped.pop())

    def _read(self, entry: Entry) -> Volume:
        """A file as a DICOM object, whatever it was; raises Refused."""
        data = self._archive.read(entry)
        if volumes.is_volume(data):
            return volumes.to_dicom(data)
        is_picture = pictures.is_picture(data)
        return Volume(pictures.to_dicom(data) if is_picture else pixels.parse(data), place=None)

    def _ingest_study(self, study_uid: str, by_series: dict[str, list[_Scanned]]) -> None:
        files = [scanned for series in by_series.values() for scanned in series]
        named = self._named_in(files)
        if len(named) > 1:
            self._refuse_all(
                files, "study_mixed_patients", "The study's files name different patients."
            )
            return
        # A file that names nobody is taken at its study's word.
        subject = named.pop() if named else files[0].subject
        for _ in range(MAX_STARTS_OF_A_STUDY):
            if selectors.is_erased(self._project, subject=subject, study_uid=study_uid):
                self._refuse_all(
                    files, "subject_erased", "Its subject was erased from the project for good."
                )
                return
            study = self._study_of(study_uid)
            study_id = study.id if study else uuid.uuid5(self._upload.id, study_uid)
            ready = self._store_new_series(study, study_id, by_series)
            if not ready or self._commit_study(
                study_id, study_uid, was_there=study is not None, subject=subject, ready=ready
            ):
                return
            _take_back(ready)
        self._refuse_all(
            files, "study_busy", "Others kept changing the study meanwhile; upload it again."
        )

    def _named_in(self, files: list[_Scanned]) -> set[str]:
        """The subjects that files name, those that were merged as one."""
        pseudonyms = {scanned.subject for scanned in files if scanned.is_named}
        return {selectors.surviving(self._project, pseudonym) for pseudonym in pseudonyms}

    def _study_of(self, study_uid: str) -> Study | None:
        return self._project.studies.select_related("subject").filter(study_uid=study_uid).first()

    def _store_new_series(
        self, study: Study | None, study_id: uuid.UUID, by_series: dict[str, list[_Scanned]]
    ) -> list[_ReadySeries]:
        ready: list[_ReadySeries] = []
        for series_uid, files in by_series.items():
            known = Slice.objects.filter(series__study=study, series__series_uid=series_uid)
            if study is not None and known.exists():
                self._compare_with_known(known, files)
            elif study is not None and self._named_in(files) - {study.subject.pseudonym}:
                self._refuse_all(
                    files, "study_mixed_patients", "The study is there for another patient."
                )
            else:
                try:
                    ready += self._store_series(study_id, series_uid, files)
                except Refused as refused:
                    self._refuse_all(files, refused.code, refused.message)
        if self._upload.attempt > 1:
            storage.delete_unfinished(
                study_prefix(str(study_id)), older_than_s=jobs.SILENT_AFTER.total_seconds()
            )
        return ready

    def _store_series(
        self, study_id: uuid.UUID, series_uid: str, files: list[_Scanned]
    ) -> list[_ReadySeries]:
        keys: list[str] = []  # of what has been stored, for taking it back
        try:
            return _volumes(series_uid, self._store_instances(study_id, files, keys=keys))
        except Refused:
            for key in keys:
                storage.delete(key)
            raise

    def _store_instances(
        self, study_id: uuid.UUID, files: list[_Scanned], *, keys: list[str]
    ) -> list[_StoredInstance]:
        by_sop: dict[str, _StoredInstance] = {}
        failed: list[Refused] = []
        for scanned in files:
            twin = by_sop.get(scanned.sop_uid)
            try:
                if twin is None:
                    by_sop[scanned.sop_uid] = self._store_instance(study_id, scanned, keys=keys)
                else:
                    # Not stored: it would lie where its twin's pixels lie.
                    self._settle_twin(scanned.entry, same=self._digests(scanned) == _digests(twin))
            except Refused as refused:
                failed.append(refused)
                self._settle(scanned.entry, "refused", refused.code, refused.message)
        if failed:
            raise Refused(
                "series_incomplete",
                f"{len(failed)} of the series' {len(files)} images could not be read; "
                "a series goes in whole or not at all.",
            )
        return list(by_sop.values())

    def _store_instance(
        self, study_id: uuid.UUID, scanned: _Scanned, *, keys: list[str]
    ) -> _StoredInstance:
        read = self._read(scanned.entry)
        dataset = read.dataset
        header = deidentify.clean(dataset, key=self._key)
        frames: list[_StoredFrame] = []
        for frame in pixels.frames(dataset):
            slice_id = self._slice_id(scanned.series_uid, scanned.sop_uid, frame=frame.number)
            frames.append(_store_frame(study_id, slice_id, frame))
            keys.append(frames[-1].key)
            if frame.number == 1:
                pixels.describe_pixels(header, frame.stored)
            self._sign_of_life()
        self._decoded.add(scanned.entry.number)
        return _StoredInstance(scanned.entry, scanned.sop_uid, header, frames, read.place)

    def _slice_id(self, series_uid: str, sop_uid: str, *, frame: int) -> uuid.UUID:
        """Equal in every attempt; with the series, as some devices repeat image UIDs in each."""
        return uuid.uuid5(self._upload.id, f"{series_uid}/{sop_uid}/{frame}")

    def _digests(self, scanned: _Scanned) -> list[str]:
        """Of a file's frames; raises Refused."""
        dataset = self._read(scanned.entry).dataset
        digests: list[str] = []
        for frame in pixels.frames(dataset):
            digests.append(array_digest(frame.stored))
            self._sign_of_life()
        return digests

    def _compare_with_known(self, known: QuerySet[Slice], files: list[_Scanned]) -> None:
        """A series is not added to: what is in it already is a duplicate, the rest is refused."""
        ours: set[str] = set()
        for scanned in files:
            slices = list(
                known.filter(instance__sop_instance_uid=scanned.sop_uid).order_by("frame_number")
            )
            digests = [slice_.pixels_digest for slice_ in slices]
            try:
                same = digests == self._digests(scanned)
            except Refused as refused:
                self._settle(scanned.entry, "refused", refused.code, refused.message)
                continue
            first_id = self._slice_id(scanned.series_uid, scanned.sop_uid, frame=1)
            if same and scanned.sop_uid not in ours and first_id in [s.id for s in slices]:
                # By an attempt at this very upload that was cut off later on.
                ours.add(scanned.sop_uid)
                self._settle(scanned.entry, "stored", "", "")
            elif digests:
                self._settle_twin(scanned.entry, same=same)
            else:
                self._settle(
                    scanned.entry,
                    "refused",
                    "series_exists",
                    "Its series is in the project already; slices are not added to it afterwards.",
                )
            self._sign_of_life()

    def _commit_study(
        self,
        study_id: uuid.UUID,
        study_uid: str,
        *,
        was_there: bool,
        subject: str,
        ready: list[_ReadySeries],
    ) -> bool:
        """Make the rows; False, and nothing made, when somebody has changed the study meanwhile."""
        with transaction.atomic():
            Project.objects.select_for_update().get(id=self._project.id)
            jobs.sign_of_life(self._upload)
            study = self._project.studies.select_for_update().filter(study_uid=study_uid).first()
            if (study is not None) != was_there or (study is not None and study.id != study_id):
                return False
            if selectors.is_erased(self._project, subject=subject, study_uid=study_uid):
                return False
            if study is None:
                study = self._new_study(study_id, study_uid, subject=subject)
            elif study.series.filter(series_uid__in=[series.uid for series in ready]).exists():
                return False
            slice_ids = [slice_.id for series in ready for slice_ in _save_series(study, series)]
            audit.study_ingested(
                self._project.id,
                study.id,
                self._upload.id,
                series=len(ready),
                slices=len(slice_ids),
            )
            live.tell(self._project.id, "studies", id=study.id)
            model_digest = active_digest(self._project)
            if model_digest is not None:
                encoding.request(
                    slice_ids, model_digest=model_digest, priority=broker.PRIORITY_LATER
                )
        for series in ready:
            for instance in series.instances:
                self._settle(instance.entry, "stored", "", "")
        return True

    def _new_study(self, study_id: uuid.UUID, study_uid: str, *, subject: str) -> Study:
        last = self._project.studies.aggregate(last=Max("number"))["last"]
        return Study.objects.create(
            id=study_id,
            project=self._project,
            # Anew: it may have been merged since.
            subject=Subject.objects.get_or_create(
                project=self._project, pseudonym=selectors.surviving(self._project, subject)
            )[0],
            upload=self._upload,
            number=(last or 0) + 1,
            study_uid=study_uid,
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

    def _settle_twin(self, entry: Entry, *, same: bool) -> None:
        if same:
            self._settle(entry, "duplicate", "duplicate", "The same image is there already.")
        else:
            self._settle(
                entry,
                "refused",
                "uid_conflict",
                "Another image with the same SOP Instance UID is there already.",
            )

    def _refuse_all(self, files: list[_Scanned], code: str, message: str) -> None:
        for scanned in files:
            if scanned.entry.number not in self._report:
                self._settle(scanned.entry, "refused", code, message)

    def _settle(self, entry: Entry, fate: str, code: str, message: str) -> None:
        self._report.setdefault(
            entry.number, {"file": entry.number, "fate": fate, "code": code, "message": message}
        )

    def _sign_of_life(self) -> None:
        if time.monotonic() - self._told_at < TELL_EVERY_S:
            return
        self._told_at = time.monotonic()
        with transaction.atomic():
            jobs.sign_of_life(self._upload)
            self._save_progress()
            self._tell()

    def _save_progress(self) -> None:
        self._upload.files_done = len(self._decoded | self._report.keys())
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


def _open_blob(key: str) -> BinaryIO:
    return storage.open_for_reading(key)


def _names_of(upload: Upload) -> dict[int, str]:
    """What the sender calls the blobs, as far as that was kept."""
    keys = set(storage.list_keys(upload.blob_prefix))
    return {
        number: storage.get(upload.name_key(number)).decode(errors="replace")
        for number in range(upload.blob_count)
        if upload.name_key(number) in keys
    }


def _take_back(ready: list[_ReadySeries]) -> None:
    for series in ready:
        for _, frame in series.ordered:
            storage.delete(frame.key)


def _store_frame(study_id: uuid.UUID, slice_id: uuid.UUID, frame: Frame) -> _StoredFrame:
    key = pixels_key(str(study_id), str(slice_id))
    storage.put(key, pack_array(frame.stored))
    flat = frame.stored.reshape(-1)
    sampled = flat[:: max(1, flat.size // SAMPLED_PIXELS)].astype(np.float32)
    return _StoredFrame(
        slice_id=slice_id,
        number=frame.number,
        key=key,
        digest=array_digest(frame.stored),
        geometry=frame.geometry,
        values=frame.values,
        shape=frame.stored.shape,
        sample=sampled * np.float32(frame.values.slope) + np.float32(frame.values.intercept),
    )


def _digests(instance: _StoredInstance) -> list[str]:
    return [frame.digest for frame in instance.frames]


def _volumes(uid: str, instances: list[_StoredInstance]) -> list[_ReadySeries]:
    """A DICOM series' frames as the volumes that they are."""
    pairs = [(instance, frame) for instance in instances for frame in instance.frames]
    return [
        _ReadySeries(
            uid,
            number,
            [pairs[index] for index in volume.frames],
            volume.slice_spacing_mm,
            volume.oddities,
        )
        for number, volume in enumerate(
            geometry.volumes([_placed(instance, frame) for instance, frame in pairs]), start=1
        )
    ]


def _placed(instance: _StoredInstance, frame: _StoredFrame) -> Placed:
    header, place = instance.header, frame.geometry
    rows, columns = place.row_spacing_mm, place.column_spacing_mm
    image_type = tuple(header.get("ImageType") or ())
    number = header.get("InstanceNumber")
    return Placed(
        shape=frame.shape,
        kind=str(header.get("PhotometricInterpretation")),
        spacing_mm=None if rows is None or columns is None else (rows, columns),
        orientation=place.orientation,
        position=place.position,
        number=(int(number) if number is not None else 0, instance.sop_uid, frame.number),
        told_apart_by=(*(str(header.get(each)) for each in TELLS_APART), image_type),
        is_localizer="LOCALIZER" in image_type,
    )


def _save_series(study: Study, ready: _ReadySeries) -> list[Slice]:
    first_instance, first = ready.ordered[0]
    header = first_instance.header
    is_color = len(first.shape) == 3
    window = None if is_color else _window(ready)
    series = Series.objects.create(
        id=uuid.uuid5(study.id, _name_of(ready)),
        study=study,
        series_uid=ready.uid,
        volume=ready.volume,
        oddities=[str(oddity) for oddity in ready.oddities],
        nifti_place=_nifti_place(ready),
        number=int(header.get("SeriesNumber") or 0),
        modality=str(header.get("Modality") or "OT")[:16],
        rows=first.shape[0],
        columns=first.shape[1],
        row_spacing_mm=first.geometry.row_spacing_mm,
        column_spacing_mm=first.geometry.column_spacing_mm,
        slice_spacing_mm=ready.slice_spacing_mm,
        orientation=_as_list(first.geometry.orientation),
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID") or ""),
        is_color=is_color,
        window_centre=window[0] if window else None,
        window_width=window[1] if window else None,
    )
    rows = {
        instance.sop_uid: Instance(
            series=series,
            sop_instance_uid=instance.sop_uid,
            sop_class_uid=str(instance.header.SOPClassUID),
            number_of_frames=len(instance.frames),
            header=instance.header.to_json_dict(),
        )
        for instance in ready.instances
    }
    Instance.objects.bulk_create(rows.values())
    return Slice.objects.bulk_create(
        [
            Slice(
                id=frame.slice_id,
                series=series,
                instance=rows[instance.sop_uid],
                index=index,
                frame_number=frame.number,
                pixels_key=frame.key,
                pixels_digest=frame.digest,
                slope=frame.values.slope,
                intercept=frame.values.intercept,
                inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
                position=_as_list(frame.geometry.position),
            )
            for index, (instance, frame) in enumerate(ready.ordered)
        ]
    )


def _nifti_place(ready: _ReadySeries) -> dict[str, Any] | None:
    """Where its file said that it lies: of a volume that came as a NIfTI, whole."""
    place = ready.ordered[0][0].place
    is_whole = len(ready.instances) == 1 and Oddity.REPEATED not in ready.oddities
    return place.model_dump(mode="json") if place is not None and is_whole else None


def _name_of(ready: _ReadySeries) -> str:
    return ready.uid if ready.volume == 1 else f"{ready.uid}/{ready.volume}"


def _window(ready: _ReadySeries) -> tuple[float, float]:
    """The series' first VOI window, else one over nearly all its values; (centre, width)."""
    for _, frame in ready.ordered:
        if frame.values.window is not None:
            return frame.values.window
    values = np.concatenate([frame.sample for _, frame in ready.ordered])
    low, high = (float(value) for value in np.percentile(values, WINDOW_PERCENTILES))
    return (low + high) / 2, max(high - low, 1.0)


def _as_list(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)
