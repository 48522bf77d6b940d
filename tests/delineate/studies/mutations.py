"""DICOM files damaged on purpose: bytes, lengths, headers that ask for too much, cut ends."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable
from typing import Final

import pydicom
from pydicom import Dataset
from pydicom.uid import UID

# What the values of a header can be set to, each far from what a reader expects.
WILD: Final = (0, 1, 2, 3, 7, 12, 16, 32, 33, 64, 255, 65535, -1)
WHOLE_NUMBERS: Final = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PlanarConfiguration",
)
FRAMES: Final = ("0", "2", "3", "500", "9999", "10000000", "-4")
PHOTOMETRICS: Final = ("MONOCHROME1", "RGB", "YBR_FULL_422", "YBR_RCT", "PALETTE COLOR", "XYZ", "")
TEXTS: Final = ("<script>alert(1)</script>", "../../etc/passwd", "\x00", "1\\2\\3", "NaN", "1e999")
SYNTAXES: Final = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5",
)
HEADER_BYTES: Final = 2048


def mutated(data: bytes, *, seed: int) -> bytes:
    """A damaged copy of a file; equal for equal seeds."""
    chance = random.Random(seed)
    return chance.choice(MUTATIONS)(data, chance)


def _flip_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bytes anywhere."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 32)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


def _flip_header_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bytes where lengths, tags and what they say stand."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        damaged[chance.randrange(min(HEADER_BYTES, len(damaged)))] = chance.randrange(256)
    return bytes(damaged)


def _lie_about_a_length(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(max(1, len(data) - 4))
    value = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, len(data)))
    return data[:at] + value.to_bytes(4, "little") + data[at + 4 :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _repeat_a_part(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.randint(1, 4096))
    return data[:end] + data[start:end] * chance.randint(1, 4) + data[end:]


def _drop_a_part(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randint(1, 512) :]


def _say_otherwise(data: bytes, chance: random.Random) -> bytes:
    """A header that is well-formed and wrong; of a file that cannot be written, other damage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            for _ in range(chance.randint(1, 3)):
                _set_something(dataset, chance)
            buffer = io.BytesIO()
            dataset.save_as(buffer)
    except Exception:
        return _flip_header_bytes(data, chance)
    return buffer.getvalue()


def _set_something(dataset: Dataset, chance: random.Random) -> None:
    kind = chance.randrange(6)
    if kind <= 1:
        setattr(dataset, chance.choice(WHOLE_NUMBERS), chance.choice(WILD) & 0xFFFF)
    elif kind == 2:
        dataset.NumberOfFrames = chance.choice(FRAMES)
    elif kind == 3:
        dataset.PhotometricInterpretation = chance.choice(PHOTOMETRICS)
    elif kind == 4:
        dataset.file_meta.TransferSyntaxUID = UID(chance.choice(SYNTAXES))
    else:
        texts = [element for element in dataset if element.VR in TEXT_VRS]
        if texts:
            element = chance.choice(texts)
            dataset[element.tag] = pydicom.DataElement(
                element.tag, element.VR, chance.choice(TEXTS), validation_mode=0
            )


TEXT_VRS: Final = ("CS", "DA", "DS", "IS", "LO", "PN", "SH", "ST", "TM", "UI", "AS", "LT")
MUTATIONS: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _flip_bytes,
    _flip_header_bytes,
    _lie_about_a_length,
    _cut,
    _repeat_a_part,
    _drop_a_part,
    _say_otherwise,
    _say_otherwise,
    _say_otherwise,
)
