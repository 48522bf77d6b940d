"""The pixels of a reference as they are kept: as they were in the file, and nothing else.

Native ones are cut to the length that the header says. Others are decoded and written natively, as
anything may lie between and behind compressed data, but for whole slides: those are too large for
that, and keep their compressed frames without comments (codestreams.py). Values only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import get_expected_length, iter_pixels
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from delineate.studies import kinds
from delineate.studies.archive import Refused
from delineate.studies.codestreams import without_comments
from delineate.studies.kinds import Kind
from delineate.studies.pixels import MAX_SIDE, number_of_frames, whole
from mlworker.contract.artifacts import Array

NATIVE: Final = str(ExplicitVRLittleEndian)
MAX_FRAMES: Final = 200_000  # of a whole slide: tiles
MAX_DECODED_BYTES: Final = 256 * 1024**2  # in memory at once, beside the file
_HOLDERS: Final = {  # of pixels, and how many bits each of them may have
    "PixelData": (1, 8, 16, 32),
    "FloatPixelData": (32,),
    "DoubleFloatPixelData": (64,),
}
# PS3.5 A.4: what codestreams.py reads.
_JPEG_FAMILY: Final = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.8", "1.2.840.10008.1.2.4.9")
_HTJ2K: Final = "1.2.840.10008.1.2.4.20"


@dataclass(frozen=True)
class KeptPixels:
    """The value of an attribute of pixels, or that there is none."""

    keyword: str = ""  # "" of objects without pixels
    transfer_syntax: str = NATIVE
    value: bytes = b""  # of compressed ones: the items (PS3.5 A.4), without the delimiter


def kept_pixels(dataset: Dataset, kind: Kind) -> KeptPixels:
    """What is kept of a reference's pixels; raises Refused."""
    with warnings.catch_warnings():
        # Ill-formed values are common and are judged by what is used of them.
        warnings.simplefilter("ignore")
        try:
            return _kept_pixels(dataset, kind)
        except (Refused, MemoryError):
            raise
        except Exception as error:  # each decoder has exceptions of its own
            raise Refused("decode_failed", "The file's pixels cannot be decoded.") from error


def _kept_pixels(dataset: Dataset, kind: Kind) -> KeptPixels:
    if kind is kinds.STRUCTURES:
        if "ROIContourSequence" not in dataset:
            raise Refused("no_contours", "The structure set has no contours.")
        return KeptPixels()
    keyword = next((each for each in _HOLDERS if each in dataset), None)
    if keyword is None:
        raise Refused("no_pixels", "The file has no pixels.")
    _check_description(dataset, keyword, may_be_color=kind is kinds.WHOLE_SLIDE)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if kind is kinds.WHOLE_SLIDE and syntax.startswith((*_JPEG_FAMILY, _HTJ2K)):
        return KeptPixels(keyword, str(syntax), _compressed(dataset))
    is_compressed = syntax.is_compressed and not syntax.is_deflated
    if is_compressed or _is_swapped(dataset, keyword):
        return KeptPixels(keyword, NATIVE, _decoded(dataset))
    return KeptPixels(keyword, NATIVE, _native(dataset, keyword))


def _check_description(dataset: Dataset, keyword: str, *, may_be_color: bool) -> None:
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE):
        raise Refused(
            "unsupported_size", f"An object of {columns} x {rows} pixels is not supported."
        )
    if whole(dataset, "SamplesPerPixel") not in ((1, 3) if may_be_color else (1,)):
        raise Refused("unsupported_photometric", "The object's colours are not of its kind.")
    bits = whole(dataset, "BitsAllocated")
    if bits not in _HOLDERS[keyword]:
        raise Refused("unsupported_bits", f"Pixels of {bits} bits are not supported here.")
    if not 1 <= number_of_frames(dataset) <= MAX_FRAMES:
        raise Refused("too_many_frames", f"The file has more than {MAX_FRAMES} frames.")


def _is_swapped(dataset: Dataset, keyword: str) -> bool:
    """Whether its numbers' bytes stand the other way round; of single bytes nothing does."""
    is_big_endian = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    return is_big_endian and (dataset[keyword].VR != "OB" or dataset.BitsAllocated > 8)


def _native(dataset: Dataset, keyword: str) -> bytes:
    value = dataset[keyword].value or b""
    size = get_expected_length(dataset, unit="bytes")
    if len(value) < size:
        raise Refused("decode_failed", "The file has fewer pixels than its header says.")
    return _even(value if len(value) == size else value[:size])


def _decoded(dataset: Dataset) -> bytes:
    """Frames one after the other, little endian; of single bits eight in a byte (PS3.5 8.1.1)."""
    bits = int(dataset.BitsAllocated)
    count = int(dataset.Rows) * int(dataset.Columns) * number_of_frames(dataset)
    if count * max(8, bits) // 8 > MAX_DECODED_BYTES:
        raise Refused(
            "pixel_bomb",
            f"The object's pixels unpack to more than {MAX_DECODED_BYTES // 1024**2} MiB.",
        )
    frames = list(_checked(dataset, bits=bits))
    if len(frames) != number_of_frames(dataset):
        raise Refused("decode_failed", "The file has fewer frames than its header says.")
    if bits == 1:
        ones = np.concatenate([frame.reshape(-1) for frame in frames])
        return _even(np.packbits(ones, bitorder="little").tobytes())
    return _even(b"".join(frame.tobytes() for frame in frames))


def _checked(dataset: Dataset, *, bits: int) -> Iterator[Array]:
    for frame in iter_pixels(dataset):
        is_as_said = frame.shape == (dataset.Rows, dataset.Columns)
        if not is_as_said or frame.dtype.itemsize * 8 != max(8, bits):
            raise Refused(
                "decode_failed", "The decoded pixels are not of the size the header says."
            )
        yield np.ascontiguousarray(frame, dtype=frame.dtype.newbyteorder("<"))


def _compressed(dataset: Dataset) -> bytes:
    frames = generate_frames(dataset.PixelData, number_of_frames=number_of_frames(dataset))
    cleaned = [without_comments(frame) for frame in frames]
    if len(cleaned) != number_of_frames(dataset):
        raise Refused("decode_failed", "The file has fewer frames than its header says.")
    return encapsulate(cleaned)


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)
