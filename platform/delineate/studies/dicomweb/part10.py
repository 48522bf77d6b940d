"""DICOM files (PS3.10) made of what is kept: a header as DICOM JSON, and frames one by one.

A header is kept without who it is about, as nobody may know that here: others are told the
subject's pseudonym in its place, and empty values where the standard wants an attribute. Values
only; a file leaves in pieces, so that one of many frames is never in memory whole.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from delineate.studies.dicomweb.negotiation import NotAcceptable

PIXEL_DATA: Final = "7FE00010"
# Attributes that an image must have, with a value or without (type 2 of the Patient, General Study,
# General Equipment, Frame of Reference and CT Image modules, PS3.3 C.7 and C.8.2.1).
_EMPTY: Final = {
    "00080020": "DA",
    "00080030": "TM",
    "00080050": "SH",
    "00080070": "LO",
    "00080090": "PN",
    "00100030": "DA",
    "00100040": "CS",
    "00200012": "IS",
    "00201040": "LO",
}
_MAX_NATIVE_BYTES: Final = 2**32 - 2  # PS3.5 7.1: a length of 32 bits, even, the last is taken
_FLOATING: Final = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}
_ITEM: Final = b"\xfe\xff\x00\xe0"
_END: Final = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def told(header: Mapping[str, Any], *, pseudonym: str, study_number: int) -> dict[str, Any]:
    """A kept header as others are told it, in the order of its tags."""
    patient = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": pseudonym}]},
        "00100020": {"vr": "LO", "Value": [pseudonym]},
        "00200010": {"vr": "SH", "Value": [str(study_number)]},
    }
    empty = {tag: {"vr": vr} for tag, vr in _EMPTY.items()}
    return dict(sorted({**empty, **header, **patient}.items()))


def pixel_data_vr(header: Mapping[str, Any]) -> str:
    """OB of a byte or less, OW of more (PS3.5 8.2 and A.2)."""
    return "OB" if _whole(header, "00280100") <= 8 else "OW"


def native_size(header: Mapping[str, Any], *, frames: int) -> int:
    """Bytes of so many frames without compression."""
    rows, columns = _whole(header, "00280010"), _whole(header, "00280011")
    samples, bits = _whole(header, "00280002") or 1, _whole(header, "00280100")
    return rows * columns * samples * (bits // 8) * frames


def file(
    header: Mapping[str, Any], *, transfer_syntax: str, frames: Iterable[bytes], count: int
) -> Iterator[bytes]:
    """A DICOM file of ``header`` (told) and its ``count`` frames, piece by piece.

    Raises NotAcceptable, before the first piece, for more than fits without compression.
    """
    size = native_size(header, frames=count)
    is_native = transfer_syntax == ExplicitVRLittleEndian
    if is_native and size > _MAX_NATIVE_BYTES:
        raise NotAcceptable(
            "The object is larger than a DICOM file without compression can be: ask for its "
            "frames, or accept JPEG-LS."
        )
    before = _before_pixels(header, transfer_syntax=transfer_syntax)
    return _native(before, header, frames, size) if is_native else _encapsulated(before, frames)


def reference_file(
    header: Mapping[str, Any],
    *,
    transfer_syntax: str,
    pixels: str,
    size: int,
    content: Iterable[bytes],
) -> Iterator[bytes]:
    """A DICOM file of ``header`` (told) and of ``pixels``, an attribute's value as it is kept."""
    before = _before_pixels(header, transfer_syntax=transfer_syntax)
    if not pixels:
        yield before
        return
    tag = tag_for_keyword(pixels)
    assert tag is not None, "an attribute of the standard"
    vr = _FLOATING.get(pixels) or pixel_data_vr(header)
    begin = before + (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    is_native = transfer_syntax == ExplicitVRLittleEndian
    length = size.to_bytes(4, "little") if is_native else b"\xff\xff\xff\xff"
    yield begin + (vr if is_native else "OB").encode() + b"\0\0" + length
    yield from content
    if not is_native:
        yield _END


def _native(
    before: bytes, header: Mapping[str, Any], frames: Iterable[bytes], size: int
) -> Iterator[bytes]:
    vr = pixel_data_vr(header).encode()
    yield before + b"\xe0\x7f\x10\x00" + vr + b"\0\0" + (size + size % 2).to_bytes(4, "little")
    yield from frames
    yield b"\0" * (size % 2)


def _encapsulated(before: bytes, frames: Iterable[bytes]) -> Iterator[bytes]:
    """Each frame one fragment, after an empty table of offsets (PS3.5 A.4)."""
    yield before + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + _ITEM + b"\0\0\0\0"
    for frame in frames:
        padded = frame + b"\0" * (len(frame) % 2)
        yield _ITEM + len(padded).to_bytes(4, "little") + padded
    yield _END


def _before_pixels(header: Mapping[str, Any], *, transfer_syntax: str) -> bytes:
    dataset = Dataset.from_json(dict(header))
    _write_decimals_short(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _write_decimals_short(dataset: Dataset) -> None:
    """JSON's numbers may have more digits than the 16 characters of a decimal string."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _write_decimals_short(item)
        elif element.VR == "DS" and element.value is not None:
            several = element.VM > 1
            values = list(element.value) if several else [element.value]
            short = [DSfloat(float(value), auto_format=True) for value in values]
            element.value = short if several else short[0]


def _whole(header: Mapping[str, Any], tag: str) -> int:
    values = header.get(tag, {}).get("Value") or [0]
    return int(values[0])
