"""The demo's studies as DICOM files, made from values: nothing is read but what two packages bring.

A functional MR volume that nibabel brings, a CT slice that pydicom brings, and two that are drawn
here: a CT phantom, and an ultrasound film with a name in its pixels. Coordinates are DICOM's
patient frame (mm; x to the left, y to the back, z to the head); volumes are indexed (slice, row,
column). Equal calls give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundMultiFrameImageStorage,
)

Volume = npt.NDArray[np.int16]  # (slices, rows, columns)
Field = npt.NDArray[np.float32]  # (rows, columns)

PHANTOM_SLICES: Final = 40
PHANTOM_SIDE: Final = 256
PHANTOM_PIXEL_MM: Final = 1.4
PHANTOM_SLICE_MM: Final = 5.0
CT_INTERCEPT: Final = -1024

ULTRASOUND_FRAMES: Final = 8
ULTRASOUND_ROWS: Final = 360
ULTRASOUND_COLUMNS: Final = 480
ULTRASOUND_NAME: Final = "SAMPLE^SONIA   *1961-04-12"
# Of what is written into every frame: left, top, right, bottom, in pixels.
ULTRASOUND_TEXT_BOX: Final = (8, 6, 330, 30)


@dataclass(frozen=True)
class Placed:
    """A volume and where it lies: the first pixel's centre, and a step along each axis, in mm."""

    values: Volume
    origin_mm: tuple[float, float, float]
    slice_step_mm: tuple[float, float, float]
    row_step_mm: tuple[float, float, float]  # from one row to the next
    column_step_mm: tuple[float, float, float]  # from one column to the next


@dataclass(frozen=True)
class Ellipsoid:
    """A tissue: centre and half axes in mm, and its density in Hounsfield units."""

    name: str
    centre_mm: tuple[float, float, float]
    half_mm: tuple[float, float, float]
    hounsfield: float


# Painted in this order, later over earlier. x to the patient's left, y to the back, z to the head.
PHANTOM: Final = (
    Ellipsoid("fat", (0, 0, 0), (160, 115, 400), -90),
    Ellipsoid("muscle", (0, 0, 0), (148, 103, 400), 55),
    Ellipsoid("abdomen", (0, -8, 0), (132, 84, 400), 20),
    Ellipsoid("right lung", (-68, 0, 95), (55, 72, 85), -850),
    Ellipsoid("left lung", (72, 6, 95), (50, 66, 85), -850),
    Ellipsoid("liver", (-55, -8, 5), (72, 70, 62), 112),
    Ellipsoid("gall bladder", (-30, -40, -38), (14, 16, 22), 8),
    Ellipsoid("stomach", (52, -32, 12), (38, 30, 34), 35),
    Ellipsoid("spleen", (98, 38, 8), (24, 34, 42), 122),
    Ellipsoid("right kidney", (-58, 44, -58), (25, 25, 46), 160),
    Ellipsoid("left kidney", (60, 46, -48), (25, 25, 46), 160),
    Ellipsoid("aorta", (14, 40, 0), (12, 12, 400), 190),
    Ellipsoid("vertebrae", (0, 70, 0), (24, 22, 400), 420),
    Ellipsoid("marrow", (0, 69, 0), (18, 16, 400), 210),
    Ellipsoid("spinal canal", (0, 90, 0), (9, 8, 400), 30),
)


def magnetic_resonance() -> Placed:
    """The first volume of nibabel's example, turned so that it is shown as radiologists expect."""
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    image = nibabel.Nifti1Image.from_filename(folder / "example4d.nii.gz")
    values = np.asanyarray(image.dataobj)[..., 0]
    # NIfTI's first two axes point to the right and the front, DICOM's to the left and the back.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    for axis in range(3):
        if affine[axis, axis] < 0:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    columns, rows, slices, origin = (_triple(axis) for axis in affine[:3].T)
    return Placed(
        values=values.astype(np.int16).transpose(2, 1, 0),
        origin_mm=origin,
        slice_step_mm=slices,
        row_step_mm=rows,
        column_step_mm=columns,
    )


def phantom() -> Placed:
    """An abdomen of ellipsoids with soft edges and noise, in Hounsfield units."""
    z = (np.arange(PHANTOM_SLICES) - (PHANTOM_SLICES - 1) / 2) * PHANTOM_SLICE_MM
    first = -(PHANTOM_SIDE - 1) / 2 * PHANTOM_PIXEL_MM
    noise = np.random.default_rng(20261123)
    return Placed(
        values=np.stack([_phantom_slice(height, first_mm=first, noise=noise) for height in z]),
        origin_mm=(first, first, float(z[0])),
        slice_step_mm=(0.0, 0.0, PHANTOM_SLICE_MM),
        row_step_mm=(0.0, PHANTOM_PIXEL_MM, 0.0),
        column_step_mm=(PHANTOM_PIXEL_MM, 0.0, 0.0),
    )


def magnetic_resonance_zip() -> bytes:
    """The MR volume as a zip of one DICOM file per slice."""
    placed = magnetic_resonance()
    template = Dataset()
    template.SOPClassUID = MRImageStorage
    template.Modality = "MR"
    template.PatientID, template.PatientName = "DEMO-MR", "Example^Magnetic"
    template.ScanningSequence, template.SequenceVariant = "EP", "NONE"
    template.PixelRepresentation, template.BitsStored = 1, 16
    return _zip(_slices(placed.values, placed=placed, template=template, name="mr"))


def phantom_zip() -> bytes:
    """The phantom as a zip of one DICOM file per slice."""
    placed = phantom()
    template = Dataset()
    template.SOPClassUID = CTImageStorage
    template.Modality = "CT"
    template.PatientID, template.PatientName = "DEMO-PHANTOM", "Phantom^Ellipsoid"
    template.RescaleSlope, template.RescaleIntercept = 1, CT_INTERCEPT
    template.RescaleType = "HU"
    template.WindowCenter, template.WindowWidth = 60, 400
    template.PixelRepresentation, template.BitsStored = 0, 12
    return _zip(_slices(placed.values - CT_INTERCEPT, placed=placed, template=template, name="ct"))


def computed_tomography_file() -> bytes:
    """pydicom's CT slice, as it is."""
    # By its path: pydicom's own function for test files would ask the network.
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return (folder / "CT_small.dcm").read_bytes()


def ultrasound_file() -> bytes:
    """A film of a cyst that pulsates, with a made-up patient's name written into its frames."""
    dataset = Dataset()
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.StudyInstanceUID = _uid("us study")
    dataset.SeriesInstanceUID = _uid("us series")
    dataset.SOPInstanceUID = _uid("us film")
    dataset.Modality = "US"
    dataset.PatientID, dataset.PatientName = "DEMO-US", "Sample^Sonia"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.NumberOfFrames = ULTRASOUND_FRAMES
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = ULTRASOUND_ROWS, ULTRASOUND_COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = _ultrasound_frames().tobytes()
    return _file(dataset)


def _ultrasound_frames() -> npt.NDArray[np.uint8]:
    """(frames, rows, columns): a fan of speckle with a dark cyst, below a line of text."""
    steps_y = np.arange(ULTRASOUND_ROWS, dtype=np.float32)
    steps_x = np.arange(ULTRASOUND_COLUMNS, dtype=np.float32) - ULTRASOUND_COLUMNS / 2
    y, x = np.meshgrid(steps_y, steps_x, indexing="ij")
    depth, angle = np.hypot(x, y + 40), np.arctan2(x, y + 40)
    fan = (depth > 100) & (depth < 370) & (np.abs(angle) < 0.62)
    noise = np.random.default_rng(20261126)
    frames = np.zeros((ULTRASOUND_FRAMES, ULTRASOUND_ROWS, ULTRASOUND_COLUMNS), np.uint8)
    for number, frame in enumerate(frames):
        swelling = 1 + 0.15 * np.sin(2 * np.pi * number / ULTRASOUND_FRAMES)
        cyst = np.hypot((x + 15) / 58, (y - 200) / 40) < swelling
        tissue = np.where(cyst, 14, 120 - 0.2 * depth) * noise.rayleigh(0.8, x.shape)
        frame[fan] = np.clip(tissue, 0, 255)[fan].astype(np.uint8)
        picture = Image.fromarray(frame)
        left, top, _, _ = ULTRASOUND_TEXT_BOX
        writing = ImageDraw.Draw(picture)
        writing.text((left, top), ULTRASOUND_NAME, fill=235, font=ImageFont.load_default(20))
        frame[:] = np.asarray(picture)
    return frames


def _phantom_slice(z_mm: float, *, first_mm: float, noise: np.random.Generator) -> Volume:
    """(rows, columns) of Hounsfield units at one height."""
    steps = first_mm + np.arange(PHANTOM_SIDE) * PHANTOM_PIXEL_MM
    y, x = np.meshgrid(steps.astype(np.float32), steps.astype(np.float32), indexing="ij")
    density = np.full(x.shape, -1000, np.float32)
    for tissue in PHANTOM:
        share = _share(tissue, x=x, y=y, z=z_mm)
        density += share * (tissue.hounsfield - density)
    density += 14 * noise.standard_normal(x.shape, dtype=np.float32)
    return np.clip(np.rint(density), CT_INTERCEPT, 3071).astype(np.int16)


def _share(tissue: Ellipsoid, *, x: Field, y: Field, z: float) -> Field:
    """How much of each pixel lies in ``tissue``, 0 … 1: an edge is about two pixels wide."""
    (cx, cy, cz), (hx, hy, hz) = tissue.centre_mm, tissue.half_mm
    radius = np.sqrt(((x - cx) / hx) ** 2 + ((y - cy) / hy) ** 2 + ((z - cz) / hz) ** 2)
    inside_mm = (1 - radius) * min(hx, hy)
    return np.clip(inside_mm / (2 * PHANTOM_PIXEL_MM) + 0.5, 0, 1).astype(np.float32)


def _slices(
    stored: npt.NDArray[np.integer], *, placed: Placed, template: Dataset, name: str
) -> Iterable[tuple[str, bytes]]:
    """File names and bytes of a series of ``stored`` values, lowest slice first."""
    origin, step = np.array(placed.origin_mm), np.array(placed.slice_step_mm)
    row_mm, row_direction = _length_and_direction(placed.row_step_mm)
    column_mm, column_direction = _length_and_direction(placed.column_step_mm)
    for index, values in enumerate(stored):
        dataset = Dataset()
        dataset.update(template)
        dataset.StudyInstanceUID = _uid(f"{name} study")
        dataset.SeriesInstanceUID = _uid(f"{name} series")
        dataset.FrameOfReferenceUID = _uid(f"{name} frame of reference")
        dataset.SOPInstanceUID = _uid(f"{name} slice {index}")
        dataset.PatientIdentityRemoved = "YES"
        dataset.SeriesNumber, dataset.InstanceNumber = 1, index + 1
        dataset.ImagePositionPatient = _decimals(origin + index * step)
        dataset.ImageOrientationPatient = _decimals([*column_direction, *row_direction])
        dataset.PixelSpacing = _decimals([row_mm, column_mm])
        dataset.SliceThickness = _decimals([float(np.linalg.norm(step))])[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = values.shape
        dataset.BitsAllocated, dataset.HighBit = 16, template.BitsStored - 1
        dataset.PixelData = values.astype(
            "<i2" if template.PixelRepresentation else "<u2"
        ).tobytes()
        yield f"{name}/slice-{index + 1:03d}.dcm", _file(dataset)


def _file(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _zip(files: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980: equal bytes every time
    return buffer.getvalue()


def _uid(name: str) -> UID:
    number = int.from_bytes(hashlib.sha256(f"delineate demo {name}".encode()).digest()[:16])
    return UID(f"2.25.{number}")


def _length_and_direction(
    step_mm: tuple[float, float, float],
) -> tuple[float, npt.NDArray[np.float64]]:
    step = np.array(step_mm)
    length = float(np.linalg.norm(step))
    return length, step / length


def _decimals(values: Sequence[float] | npt.NDArray[np.float64]) -> list[str]:
    # DS is text of at most 16 characters; nine digits are a millionth of a millimetre here.
    return [f"{float(value) + 0.0:.9g}"[:16] for value in values]


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
