"""NIfTI and NRRD volumes become DICOM at the door, placed where their headers say.

A volume is one multi-frame object: a frame for each step along the file's third axis, rows along
its second, columns along its first. Headers' axes that point right and anterior are turned into
DICOM's (PS3.3 C.7.6.2.1.1), values stay integers with slope and intercept. A NIfTI's own words of
where it lies are kept beside it, so that masks can be written back with exactly the same. Nothing
else of a header is taken over. Values only.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import Any, Final

import nibabel
import nrrd
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from delineate.studies import pixels
from delineate.studies.archive import Refused, bomb, most_unpacked

_GZIP: Final = b"\x1f\x8b"
_NRRD: Final = b"NRRD000"
# A header's first four bytes are its size, in either byte order; its last say which NIfTI it is.
_SIZES: Final = {348: (344, b"n+1\0"), 540: (4, b"n+2\0")}
_INFLATED_AT_ONCE: Final = 1024**2
# Headers round; farther from a right angle than this, rows and columns are no image.
_RIGHT_ANGLE: Final = 1e-3
_STEPS: Final = 2**16 - 1  # in which values that are no integers are kept
_TO_PATIENT: Final = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
}

Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]  # (4, 4), voxel -> patient in mm, x to the left, y to the back


class NiftiPlace(BaseModel):
    """A NIfTI-1 header's fields that say where its voxels lie, as they stand there.

    Numbers of single precision are kept exactly, also by way of JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    qform_code: int
    sform_code: int
    pixdim: tuple[float, ...]  # qfac, then a voxel's sides
    quaternion: tuple[float, ...]  # b, c, d
    offset: tuple[float, ...]
    srow: tuple[float, ...]  # x, y, z, row by row
    xyzt_units: int


@dataclass(frozen=True)
class Volume:
    """A volume as a DICOM object, and a NIfTI's own words of where it lies.

    ``is_volume`` is False of what was DICOM or a picture. A volume is made of measured values: it
    can have nothing written into its pixels, though its object is a secondary capture.
    """

    dataset: Dataset
    place: NiftiPlace | None
    is_volume: bool = True


@dataclass(frozen=True)
class _Read:
    values: Array  # (columns, rows[, slices[, moments]])
    slope: float
    intercept: float
    affine: Affine | None  # None: the header does not say where it lies
    spacing_mm: tuple[float, float]  # between rows, between columns
    place: NiftiPlace | None


def is_volume(data: bytes) -> bool:
    """Whether the first bytes are those of a NIfTI, compressed or not, or of an NRRD."""
    return data.startswith((_GZIP, _NRRD)) or _is_nifti(data)


def to_dicom(data: bytes) -> Volume:
    """A volume with UIDs of the file's bytes: the same file is the same object again.

    Raises Refused ``not_dicom`` (compressed, and no NIfTI), ``unreadable``, ``zip_bomb``,
    ``unsupported_size``, ``unsupported_pixels``, ``unsupported_dimensions``, ``too_many_frames``,
    ``sheared``.
    """
    plain = _inflated(data) if data.startswith(_GZIP) else data
    if not plain.startswith(_NRRD) and not _is_nifti(plain):
        raise Refused("not_dicom", "The file is compressed, and no NIfTI.")
    try:
        read = _read_nrrd(plain) if plain.startswith(_NRRD) else _read_nifti(plain)
    except Refused:
        raise
    except Exception as error:  # both readers raise what their parts raise
        raise Refused("unreadable", "The volume is damaged and cannot be read.") from error
    return Volume(_dataset(read, data), read.place)


def _is_nifti(data: bytes) -> bool:
    for size, (at, magic) in _SIZES.items():
        sizes = (size.to_bytes(4, "little"), size.to_bytes(4, "big"))
        if data.startswith(sizes) and data[at : at + 4] == magic:
            return True
    return False


def _inflated(data: bytes) -> bytes:
    most = most_unpacked(len(data))
    inflated = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while part := file.read(_INFLATED_AT_ONCE):
                inflated.write(part)
                if inflated.tell() > most:
                    raise bomb()
    except (OSError, EOFError, zlib.error) as error:
        raise Refused("unreadable", "The file is damaged and cannot be unpacked.") from error
    return inflated.getvalue()


def _read_nifti(data: bytes) -> _Read:
    is_first = data[344:348] == b"n+1\0"
    kind = nibabel.Nifti1Image if is_first else nibabel.Nifti2Image
    image = kind.from_bytes(data)
    header = image.header
    stored: Any = image.dataobj
    # With neither, nothing is said but the voxels' size.
    says_where = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    affine = _usable(np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine) if says_where else None
    zooms = [float(each) for each in (*header.get_zooms()[:2], 1.0, 1.0)]
    return _Read(
        values=np.asanyarray(stored.get_unscaled()),
        slope=float(stored.slope),
        intercept=float(stored.inter),
        affine=affine,
        spacing_mm=(zooms[1], zooms[0]),
        place=_place_of(header) if is_first and affine is not None else None,
    )


def _place_of(header: Any) -> NiftiPlace:
    def numbers(*names: str) -> tuple[float, ...]:
        return tuple(float(value) for name in names for value in np.atleast_1d(header[name]))

    return NiftiPlace(
        qform_code=int(header["qform_code"]),
        sform_code=int(header["sform_code"]),
        pixdim=numbers("pixdim")[:4],
        quaternion=numbers("quatern_b", "quatern_c", "quatern_d"),
        offset=numbers("qoffset_x", "qoffset_y", "qoffset_z"),
        srow=numbers("srow_x", "srow_y", "srow_z"),
        xyzt_units=int(header["xyzt_units"]),
    )


def _read_nrrd(data: bytes) -> _Read:
    file = io.BytesIO(data)
    header = nrrd.read_header(file)
    if "data file" in header or "datafile" in header:
        raise Refused("unreadable", "The volume's values lie in another file.")
    if header.get("encoding") not in ("raw", "gzip", "gz"):
        raise Refused("unsupported_pixels", "The volume's values are neither raw nor gzip.")
    if len(header["sizes"]) > 3:
        raise Refused("unsupported_dimensions", "An NRRD of more than three axes is no volume.")
    # Unpacked here, where it is counted.
    rest = file.read()
    raw = rest if header["encoding"] == "raw" else _inflated(rest)
    values = nrrd.read_data({**header, "encoding": "raw"}, io.BytesIO(raw))
    affine, spacing = None, [1.0, 1.0]
    directions = header.get("space directions")
    signs = _TO_PATIENT.get(str(header.get("space", "")))
    if directions is not None and signs is not None and "space origin" in header:
        vectors = np.asarray(directions, np.float64)
        affine = np.eye(4)
        affine[:3, :3] = (vectors * signs).T
        affine[:3, 3] = np.asarray(header["space origin"], np.float64) * signs
        spacing = [float(np.linalg.norm(each)) for each in vectors[:2]]
    elif "spacings" in header:
        spacing = [float(each) for each in header["spacings"][:2]]
    usable = None if affine is None else _usable(affine)
    return _Read(values, 1.0, 0.0, usable, (spacing[1], spacing[0]), None)


def _usable(affine: Affine) -> Affine | None:
    """None where it is no place: with numbers that are none, or an axis without length."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return affine if np.isfinite(affine).all() and lengths.min() > 0 else None


def _dataset(read: _Read, data: bytes) -> Dataset:
    values = _with_slices(read.values)
    stored, slope, intercept = _as_integers(values, read)
    frames = _frames(stored)  # (frames, rows, columns)
    dataset = pixels.secondary_capture(frames, of=data, is_multi_frame=True)
    dataset.RescaleSlope = DSfloat(slope, auto_format=True)
    dataset.RescaleIntercept = DSfloat(intercept, auto_format=True)
    # The first frame alone does not say how large the others' values are.
    dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
    if min(read.spacing_mm) > 0:
        dataset.PixelSpacing = [DSfloat(each, auto_format=True) for each in read.spacing_mm]
    if read.affine is not None:
        _say_where(dataset, read.affine, frames=len(frames), slices=values.shape[2])
    return dataset


def _with_slices(values: Array) -> Array:
    """(columns, rows, slices[, moments])."""
    if values.dtype.kind not in "biuf":
        raise Refused("unsupported_pixels", "The volume's values are no numbers, or complex ones.")
    if not 2 <= values.ndim <= 4:
        raise Refused(
            "unsupported_dimensions", f"A volume of {values.ndim} dimensions is not supported."
        )
    if values.size == 0:
        raise Refused("unsupported_size", "The volume is empty.")
    return values[..., None] if values.ndim == 2 else values


def _as_integers(values: Array, read: _Read) -> tuple[Array, float, float]:
    """Values that can be stored, and what they are to be multiplied by and added to.

    Those that are no integers are kept in 65,536 steps.
    """
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        low, high = float(finite.min()), float(finite.max())
        if not np.array_equal(finite, np.rint(finite)) or low < -(2**31) or high >= 2**31:
            step = (high - low) / _STEPS or 1.0
            stored = np.rint((finite - low) / step).astype(np.uint16)
            return stored, read.slope * step, read.slope * low + read.intercept
        values = finite.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32):
        held = np.iinfo(dtype)
        if held.min <= low and high <= held.max:
            return values.astype(dtype), read.slope, read.intercept
    raise Refused("unsupported_pixels", "The volume's values need more than 32 bits.")


def _frames(values: Array) -> Array:
    columns, rows = values.shape[:2]
    if max(columns, rows) > pixels.MAX_SIDE:
        raise Refused(
            "unsupported_size", f"An image of {columns} x {rows} pixels is not supported."
        )
    # Moment by moment, slice by slice; Fortran's order of axes read backwards.
    frames = values.T.reshape(-1, rows, columns)
    if len(frames) > pixels.MAX_FRAMES:
        raise Refused("too_many_frames", f"The file has more than {pixels.MAX_FRAMES} frames.")
    return np.ascontiguousarray(frames, dtype=frames.dtype.newbyteorder("<"))


def _say_where(dataset: Dataset, affine: Affine, *, frames: int, slices: int) -> None:
    """Positions and orientation of each frame (PS3.3 C.7.6.16.2.3 and .4)."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    along_row, along_column = affine[:3, 0] / lengths[0], affine[:3, 1] / lengths[1]
    if abs(along_row @ along_column) > _RIGHT_ANGLE:
        raise Refused("sheared", "The volume's rows and columns are not at right angles.")
    dataset.FrameOfReferenceUID = f"{dataset.StudyInstanceUID}9"
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _decimals(along_row, along_column)
    measures.PixelSpacing = _decimals([lengths[1], lengths[0]])
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number in range(frames):
        position, group = Dataset(), Dataset()
        at = affine[:3, 3] + affine[:3, 2] * (number % slices)
        position.ImagePositionPatient = _decimals(at)
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups


def _decimals(*vectors: Any) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for vector in vectors for value in vector]
