"""DICOM files and zips built in memory, and their way through the front door."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from delineate.projects.models import Project
from delineate.studies import ingest
from delineate.studies.models import Upload
from tests.delineate.factories import CT, new_uid


def image(
    *,
    pixels: npt.NDArray[Any] | None = None,
    seed: int = 0,
    z: float | None = 0.0,
    study: str = "1.2.3",
    series: str = "1.2.3.1",
    sop: str | None = None,
    patient: str | None = "PAT-1",
    photometric: str = "MONOCHROME2",
    **more: Any,
) -> Dataset:
    """A CT image of 8 x 10 noise; ``more`` are attributes by keyword, None takes one away."""
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(-1000, 1000, (8, 10), dtype=np.int16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = sop or new_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    if patient is not None:
        dataset.PatientID = patient
    dataset.Modality = "CT"
    dataset.SeriesNumber = 4
    if z is not None:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-10.0, -20.0, z]
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.FrameOfReferenceUID = f"{study}.99"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -24
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    set_pixels(dataset, pixels, photometric=photometric)
    for keyword, value in more.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def set_pixels(
    dataset: Dataset, pixels: npt.NDArray[Any], *, photometric: str = "MONOCHROME2"
) -> None:
    """Native pixels: (rows, columns), (frames, rows, columns), or (rows, columns, 3) for colour."""
    color = photometric == "RGB"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if color else pixels.shape[-2:]
    if pixels.ndim == 3 and not color:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.SamplesPerPixel = 3 if color else 1
    if color:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 1 if pixels.dtype.kind == "i" else 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))


def written(dataset: Dataset) -> bytes:
    """A dataset as a DICOM file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def reread(dataset: Dataset, syntax: UID | None = None) -> Dataset:
    """A dataset as it is after it was written and read, in another transfer syntax if given."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    copy = deepcopy(dataset)
    copy.file_meta = meta
    buffer = io.BytesIO()
    copy.save_as(buffer, enforce_file_format=False)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()), force=True)


def zipped(
    files: Sequence[Dataset | bytes] | Mapping[str, Dataset | bytes], *, comment: bytes = b""
) -> bytes:
    """A zip of datasets or raw bytes, by name or numbered."""
    named = files if isinstance(files, Mapping) else {f"{n}.dcm": f for n, f in enumerate(files)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, content in named.items():
            archive.writestr(name, content if isinstance(content, bytes) else written(content))
    return buffer.getvalue()


def send(client: Client, project: Project, *blobs: bytes, name: str = "images.zip") -> Upload:
    """Upload blobs as a browser does; their ingest is owed, not done."""
    response = client.post(
        f"/api/projects/{project.id}/uploads",
        {"files": [SimpleUploadedFile(name, blob) for blob in blobs]},
    )
    assert response.status_code == 201, response.content
    return Upload.objects.get(id=response.json()["id"])


def send_and_ingest(
    client: Client, project: Project, *blobs: bytes, name: str = "images.zip"
) -> Upload:
    """Upload blobs and run their ingest to its end."""
    upload = send(client, project, *blobs, name=name)
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    return upload


def fates(upload: Upload) -> list[tuple[str, str]]:
    """What became of each file: (fate, code)."""
    return [(line["fate"], line["code"]) for line in upload.report]
