"""A DICOM object's frames: decoded, checked, with their geometry and value mapping. Values only.

Every refusal is an ``archive.Refused`` with a code and a sentence for the upload's report.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from delineate.studies import kinds
from delineate.studies.archive import Refused, bomb, most_unpacked
from delineate.studies.kinds import Fate, Kind
from mlworker.contract.artifacts import Array

MAX_SIDE: Final = 16_384
MAX_FRAMES: Final = 10_000
# Of lengths, slopes and windows: times any pixel's value it still fits single precision.
_MOST: Final = 1e25
MAX_FRAME_BYTES: Final = 256 * 1024**2  # a mammogram has 50 MB; colour of 9,000 x 9,000 fits
# What an object's frames may have together, decoded; and how many times what its pixels have in the
# file: black frames in JPEG 2000 reach hundreds.
MAX_PIXEL_BYTES: Final = 8 * 1024**3
MAX_PIXEL_RATIO: Final = 1000
PIXEL_RATIO_FROM_BYTES: Final = 256 * 1024**2

# Old scanners and converters write images without saying of which kind they are.
_UNSAID: Final = SecondaryCaptureImageStorage
# Of frames that are colour or not, and of whole bytes or not.
_MULTI_FRAME_CAPTURES: Final = {
    (False, True): MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    (False, False): MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    (True, True): MultiFrameTrueColorSecondaryCaptureImageStorage,
}
# The least header that makes a file without a preamble an image (PS3.10 7.1 is not kept by all).
_BARE_GROUPS: Final = (0x0002, 0x0008)
_IDENTIFIERS: Final = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
# Of a whole slide's images (PS3.3 C.8.12.4.1.1).
_OF_TISSUE: Final = frozenset({"VOLUME", "THUMBNAIL"})
_OF_LABELS: Final = frozenset({"LABEL", "OVERVIEW"})
_DIRECTORY: Final = "1.2.840.10008.1.3.10"
# PS3.10 7.1: 128 bytes, "DICM", then (0002,0000) UL, length of the rest of its own group.
_PREAMBLE_BYTES: Final = 128
_LEAST_BYTES: Final = 8  # of a data element: tag, length or VR and length
_GROUP_LENGTH: Final = b"\x02\x00\x00\x00UL\x04\x00"
_GROUP_LENGTH_AT: Final = 132
_INFLATED_AT_ONCE: Final = 1024**2


@dataclass(frozen=True)
class Geometry:
    """Where a frame lies; None where the object does not say. Lengths in mm, patient axes."""

    position: tuple[float, ...] | None  # centre of the first pixel
    orientation: tuple[float, ...] | None  # along a row, then along a column
    row_spacing_mm: float | None
    column_spacing_mm: float | None


@dataclass(frozen=True)
class Values:
    """How stored values become modality units, and the first window in those units."""

    slope: float
    intercept: float
    window: tuple[float, float] | None  # centre, width


@dataclass(frozen=True)
class Frame:
    """One frame of an object."""

    number: int  # 1 …
    stored: Array  # (rows, columns), or (rows, columns, 3) uint8
    geometry: Geometry
    values: Values


def parse(data: bytes) -> Dataset:
    """The dataset of a DICOM file, with or without a preamble and file meta information.

    UIDs that the file lacks are made of its bytes, so that it is known when it comes again. Raises
    Refused ``not_dicom``, ``unreadable``, ``zip_bomb``.
    """
    _refuse_deflate_bomb(data)
    bare = data[_PREAMBLE_BYTES:_GROUP_LENGTH_AT] != b"DICM"
    if bare and not _begins_like_dicom(data):
        raise Refused("not_dicom", "The file is no image of a known kind.")
    try:
        with warnings.catch_warnings():
            # Ill-formed values are common and are judged below, by what is used of them.
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=bare)
            _say_transfer_syntax(dataset)
            give_missing_uids(dataset, data)
    except InvalidDicomError as error:
        raise Refused("not_dicom", "The file is no image of a known kind.") from error
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises what its parts raise, down to struct.error
        raise Refused("unreadable", "The file is damaged and cannot be read.") from error
    return dataset


def check_kind(dataset: Dataset) -> Kind:
    """An image or a reference; every other thing is refused by name."""
    sop_class = str(dataset.get("SOPClassUID", "") or "")
    if sop_class == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        raise Refused("directory", "The file is a DICOMDIR: an index, not an image.")
    if not sop_class and "PixelData" in dataset:
        dataset.SOPClassUID = sop_class = _UNSAID
    kind = kinds.kind_of(sop_class)
    if kinds.is_video(str(dataset.file_meta.get("TransferSyntaxUID", ""))):
        kind = kinds.VIDEO
    if kind.fate is Fate.REFUSED:
        raise Refused(kind.code, kind.sentence)
    if kind is kinds.WHOLE_SLIDE:
        _refuse_slide_label(dataset)
    if kind.fate is Fate.REFERENCE:
        return kind
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise Refused("unsupported_pixels", "Floating-point pixels are not supported.")
        raise Refused("no_pixels", "The file has no pixels.")
    _check_description(dataset)
    return kind


def frames(dataset: Dataset) -> Iterator[Frame]:
    """Every frame, decoded; raises Refused when one of them cannot be."""
    count = number_of_frames(dataset)
    decoded = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for stored in iter_pixels(dataset):
                decoded += 1
                shown, mapping = _shown(_checked(stored, dataset), dataset, frame=decoded)
                yield Frame(decoded, shown, _geometry(dataset, frame=decoded), mapping)
        except (Refused, MemoryError):
            raise
        except Exception as error:  # each decoder has exceptions of its own
            raise Refused("decode_failed", "The file's pixels cannot be decoded.") from error
    if decoded != count:
        raise Refused("decode_failed", f"The file says {count} frames and holds {decoded}.")


def describe_pixels(header: Dataset, stored: Array) -> None:
    """Make a header say how its frames are stored here: little endian, whole bytes, RGB."""
    header.Rows, header.Columns = stored.shape[:2]
    header.BitsAllocated = stored.dtype.itemsize * 8
    header.BitsStored = min(
        int(header.get("BitsStored") or header.BitsAllocated), header.BitsAllocated
    )
    # Signed, looked up in a table, or beyond what the file says: only the whole word holds it.
    if stored.dtype.kind == "i" or stored.ndim == 3 or int(stored.max()) >> header.BitsStored:
        header.BitsStored = header.BitsAllocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = 1 if stored.dtype.kind == "i" else 0
    header.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        header.PhotometricInterpretation = "RGB"
        header.PlanarConfiguration = 0


def secondary_capture(frames: Array, *, of: bytes, is_multi_frame: bool) -> Dataset:
    """Frames that were no DICOM as an object with UIDs of the file's bytes, ``of``.

    (frames, rows, columns), or (frames, rows, columns, 3) of colour; little endian.
    """
    color = frames.ndim == 4
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = (
        _MULTI_FRAME_CAPTURES[color, frames.dtype.itemsize == 1] if is_multi_frame else _UNSAID
    )
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    if is_multi_frame:
        dataset.NumberOfFrames = len(frames)
    dataset.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    dataset.SamplesPerPixel = 3 if color else 1
    describe_pixels(dataset, frames[0])
    data = frames.tobytes()
    vr = "OB" if frames.dtype.itemsize == 1 else "OW"
    dataset.add_new("PixelData", vr, data + b"\0" * (len(data) % 2))
    give_missing_uids(dataset, of)
    return dataset


def give_missing_uids(dataset: Dataset, data: bytes) -> None:
    """UIDs of the file's own digest: without them it is a study of its own."""
    digest = int.from_bytes(hashlib.sha256(data).digest()[:15], "big")
    for number, keyword in enumerate(_IDENTIFIERS):
        if not str(dataset.get(keyword, "") or "").strip():
            setattr(dataset, keyword, f"2.25.{digest}{number}")


def _begins_like_dicom(data: bytes) -> bool:
    """Whether the first bytes are a tag that DICOM objects begin with, in either byte order."""
    groups = (int.from_bytes(data[:2], "little"), int.from_bytes(data[:2], "big"))
    return len(data) > _LEAST_BYTES and any(group in _BARE_GROUPS for group in groups)


def _say_transfer_syntax(dataset: Dataset) -> None:
    """Of a file without meta information: what reading it has shown. It is never compressed."""
    if getattr(dataset.file_meta, "TransferSyntaxUID", None):
        return
    implicit, little = dataset.original_encoding
    dataset.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian
        if implicit
        else ExplicitVRLittleEndian
        if little
        else ExplicitVRBigEndian
    )


def _refuse_deflate_bomb(data: bytes) -> None:
    """Judge a deflated dataset before pydicom inflates it at once, however large it is."""
    start = _GROUP_LENGTH_AT + len(_GROUP_LENGTH)
    if data[_GROUP_LENGTH_AT:start] != _GROUP_LENGTH:
        if DeflatedExplicitVRLittleEndian.encode() in data[:_INFLATED_AT_ONCE]:
            raise Refused("unreadable", "The file is deflated and does not say from where on.")
        return
    end = start + 4 + int.from_bytes(data[start : start + 4], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in data[start:end]:
        return
    most = most_unpacked(len(data))
    inflating, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[end:]
    try:
        while rest and not inflating.eof:
            size += len(inflating.decompress(rest, _INFLATED_AT_ONCE))
            if size > most:
                raise bomb()
            rest = inflating.unconsumed_tail
    except zlib.error as error:
        raise Refused("unreadable", "The file is damaged and cannot be read.") from error


def _refuse_slide_label(dataset: Dataset) -> None:
    """Names are written on slides: what shows the label, or may show it, does not go in."""
    image_type = dataset.get("ImageType") or ()
    words = {image_type} if isinstance(image_type, str) else set(map(str, image_type))
    is_tissue = words & _OF_TISSUE and not words & _OF_LABELS
    if not is_tissue or str(dataset.get("SpecimenLabelInImage") or "") == "YES":
        raise Refused(
            "slide_label",
            "It shows the slide's label, or does not say that it does not: names stand there.",
        )


def _check_description(dataset: Dataset) -> None:
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise Refused(
            "unsupported_size", f"An image of {columns} x {rows} pixels is not supported."
        )
    photometric = str(dataset.get("PhotometricInterpretation", "") or "")
    if not photometric.startswith(("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_", "PALETTE COLOR")):
        raise Refused("unsupported_photometric", "The photometric interpretation is not supported.")
    if photometric.startswith(("RGB", "YBR_")) and whole(dataset, "SamplesPerPixel") != 3:
        raise Refused("unsupported_photometric", "The file's colours are not of three samples.")
    bits = whole(dataset, "BitsAllocated")
    if bits not in (8, 16, 32):
        raise Refused("unsupported_bits", f"Pixels of {bits} bits are not supported here.")
    frames = number_of_frames(dataset)
    if frames > MAX_FRAMES:
        raise Refused("too_many_frames", f"The file has more than {MAX_FRAMES} frames.")
    _refuse_by_memory(
        dataset,
        rows * columns * max(1, whole(dataset, "SamplesPerPixel")) * bits // 8,
        frames=frames,
    )


def _refuse_by_memory(dataset: Dataset, frame_bytes: int, *, frames: int) -> None:
    """Judge what the header asks for before anything of it is allocated."""
    if frame_bytes > MAX_FRAME_BYTES:
        raise Refused(
            "unsupported_size",
            f"A frame of more than {MAX_FRAME_BYTES // 1024**2} MiB is not supported.",
        )
    held = len(dataset.get_item("PixelData").value or b"")
    if frames * frame_bytes > MAX_PIXEL_BYTES or (
        frames * frame_bytes > max(PIXEL_RATIO_FROM_BYTES, MAX_PIXEL_RATIO * held)
    ):
        raise Refused(
            "pixel_bomb",
            f"The file's pixels unpack to more than {MAX_PIXEL_RATIO} times their size.",
        )


def _checked(stored: Array, dataset: Dataset) -> Array:
    shape = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape not in (shape, (*shape, 3)):
        raise Refused("decode_failed", "The decoded pixels are not of the size the header says.")
    # Big-endian files decode to big-endian arrays; everything here is little endian.
    return np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<"))


def _shown(stored: Array, dataset: Dataset, *, frame: int) -> tuple[Array, Values]:
    """Stored values as they are kept: colour as 8-bit RGB, a table's outcome in place of its index.

    (rows, columns) or (rows, columns, 3) -> the same, or (rows, columns, 3) of a palette.
    """
    values = _values(dataset, frame=frame)
    if str(dataset.PhotometricInterpretation) == "PALETTE COLOR":
        if "RedPaletteColorLookupTableDescriptor" not in dataset:
            raise Refused("no_palette", "The file's colours are in a palette that it lacks.")
        bits = _whole_of(dataset.RedPaletteColorLookupTableDescriptor, 2)
        return _to_bytes(apply_color_lut(stored, dataset)[..., :3], bits=bits), values
    if stored.ndim == 3:
        return _to_bytes(stored, bits=whole(dataset, "BitsStored")), values
    if dataset.get("ModalityLUTSequence"):
        looked_up = apply_modality_lut(stored, dataset)
        if not np.issubdtype(looked_up.dtype, np.integer):
            raise Refused("unsupported_modality_lut", "The file's table of values is not readable.")
        return np.ascontiguousarray(looked_up), Values(1.0, 0.0, values.window)
    return stored, values


def _to_bytes(colour: Array, *, bits: int) -> Array:
    """The eight highest of the ``bits`` that are used; screens and models see no more."""
    most = colour.dtype.itemsize * 8
    used = bits if 8 <= bits <= most else most
    return np.ascontiguousarray(colour >> (used - 8), np.uint8) if used > 8 else colour


def _whole_of(value: Any, index: int) -> int:
    numbers = _numbers(value, index + 1)
    return int(numbers[index]) if numbers else 0


def number_of_frames(dataset: Dataset) -> int:
    """As the header says, 1 where it does not."""
    return whole(dataset, "NumberOfFrames") or 1


def whole(dataset: Dataset, keyword: str) -> int:
    """A whole number, 0 where there is none; Refused where there is something else."""
    try:
        return int(dataset.get(keyword) or 0)
    except (TypeError, ValueError, OverflowError) as error:  # overflow: it is infinite
        raise Refused("unreadable", f"The file's {keyword} is not a number.") from error


def _geometry(dataset: Dataset, *, frame: int) -> Geometry:
    position = from_groups(dataset, frame, "PlanePositionSequence", "ImagePositionPatient")
    orientation = from_groups(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = from_groups(dataset, frame, "PixelMeasuresSequence", "PixelSpacing")
    spacing_mm = _numbers(spacing, 2) or _numbers(dataset.get("ImagerPixelSpacing"), 2)
    if spacing_mm is not None and min(spacing_mm) <= 0:
        spacing_mm = None
    orientation_numbers = _numbers(orientation, 6)
    if orientation_numbers is not None and not _is_orthonormal(orientation_numbers):
        orientation_numbers = None
    return Geometry(
        position=_numbers(position, 3) if orientation_numbers is not None else None,
        orientation=orientation_numbers,
        row_spacing_mm=spacing_mm[0] if spacing_mm else None,
        column_spacing_mm=spacing_mm[1] if spacing_mm else None,
    )


def _values(dataset: Dataset, *, frame: int) -> Values:
    group = "PixelValueTransformationSequence"
    slope = _number(from_groups(dataset, frame, group, "RescaleSlope"))
    intercept = _number(from_groups(dataset, frame, group, "RescaleIntercept"))
    centre = _number(from_groups(dataset, frame, "FrameVOILUTSequence", "WindowCenter"))
    width = _number(from_groups(dataset, frame, "FrameVOILUTSequence", "WindowWidth"))
    has_window = centre is not None and width is not None and width > 0
    return Values(
        slope=slope or 1.0,  # zero would make every pixel equal: a broken header, not a mapping
        intercept=intercept or 0.0,
        window=(centre, width) if has_window and centre is not None and width is not None else None,
    )


def from_groups(dataset: Dataset, frame: int, group: str, keyword: str) -> Any:
    """An attribute of a frame: its own group's, the shared group's, or the object's.

    Without the name of a group it is the object's.
    """
    if not group:
        return dataset.get(keyword)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    candidates = [*per_frame[frame - 1 : frame], *shared[:1]]
    for functional_group in candidates:
        items = functional_group.get(group) or []
        if items and keyword in items[0]:
            return items[0].get(keyword)
    return dataset.get(keyword)


def _number(value: Any) -> float | None:
    numbers = _numbers(value, 1)
    return None if numbers is None else numbers[0]


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """The first ``count`` numbers of a value, None when there are not that many of any sense."""
    if value is None or isinstance(value, bytes):
        return None
    items = (
        [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else value
    )
    try:
        numbers = tuple(float(item) for item in list(items)[:count])
    except (TypeError, ValueError):
        return None
    has_sense = all(abs(number) <= _MOST for number in numbers)  # which "not a number" is not
    return numbers if len(numbers) == count and has_sense else None


def _is_orthonormal(orientation: tuple[float, ...]) -> bool:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    tolerance = 1e-2  # headers round to a few decimals
    return bool(
        abs(np.linalg.norm(row) - 1) < tolerance
        and abs(np.linalg.norm(column) - 1) < tolerance
        and abs(row @ column) < tolerance
    )
