"""What a file is, read in a process of its own: whose it is, its header without names, its frames.

Codecs crash on what is made to crash them, and a header can ask for any amount of memory; here that
ends this process and nothing else. It knows no database, may open few files and write none, and is
told the time and memory that a file may take. reader.py is its other end.

    in:   request and the file's bytes
    out:  described, then of an image: frame …, end;  of a reference: reference
          or refused instead of any of them
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydicom import Dataset

from delineate.projects.privacy import Policy
from delineate.studies import burned_in, deidentify, kinds, pictures, pixels, volumes
from delineate.studies.archive import Refused
from delineate.studies.burned_in import Reason
from delineate.studies.geometry import Placed
from delineate.studies.kinds import Fate, Kind
from delineate.studies.originals import Original, original_of
from delineate.studies.pixels import Frame, Values
from delineate.studies.reference_pixels import kept_pixels
from delineate.studies.volumes import NiftiPlace, Volume
from mlworker.contract.artifacts import Array

_OPEN_FILES: Final = 64

# Attributes that tell images at one place apart, the most telling first (PS3.3 C.8.3.1, C.8.13).
_TELLS_APART: Final = (
    ("", "EchoNumbers"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("", "EchoTime"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("", "TemporalPositionIdentifier"),
    ("", "InversionTime"),
    ("", "RepetitionTime"),
    ("", "FlipAngle"),
    ("", "KVP"),
)
_LENGTHS: Final = struct.Struct(">IQ")  # of a message's JSON, and of the bytes that follow it


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Whose(_Message):
    """What an upload says of who is on a file."""

    mapped: frozenset[str] = frozenset()  # the subjects that its mappings name for it
    # Tells apart files that name nobody; None: each study is somebody else's.
    unnamed: str | None = None


class Request(_Message):
    """A file to read, as a project wants it, and what reading it may take."""

    key: str  # hexadecimal
    policy: Policy
    whose: Whose
    with_original: bool  # it is sealed as soon as it is out of here
    memory_bytes: int  # all of the process's own
    processor_s: int


class Described(_Message):
    """What the header tells; UIDs are ours."""

    kind: Literal["described"] = "described"
    subject: str  # what the patient is called here
    is_named: bool  # by the header, or a mapping
    study_uid: str
    series_uid: str
    sop_uid: str
    place: NiftiPlace | None
    is_reference: bool = False  # it has no frames to delineate


class FrameHead(_Message):
    """A frame; its pixels follow."""

    kind: Literal["frame"] = "frame"
    number: int
    dtype: str
    placed: Placed
    values: Values


class End(_Message):
    """That was all; the header, de-identified, says how the pixels are stored here."""

    kind: Literal["end"] = "end"
    sop_class_uid: str
    modality: str
    series_number: int
    frame_of_reference_uid: str
    is_inverted: bool
    held_because: Reason | None  # its pixels may show a name
    header: dict[str, Any]  # DICOM JSON (PS3.18 F)
    original: Original | None  # where it was asked for


class ReferenceHead(_Message):
    """All of an object that is kept beside the images; the bytes of its pixels follow."""

    kind: Literal["reference"] = "reference"
    sop_class_uid: str
    modality: str
    series_number: int
    is_held: bool  # its pixels may show a name
    header: dict[str, Any]
    pixels: str  # the attribute that its pixels are the value of; "" where it has none
    transfer_syntax: str  # of the value
    size: int
    original: Original | None


class Refusal(_Message):
    """The file does not go in."""

    kind: Literal["refused"] = "refused"
    code: str
    message: str


Message = Described | FrameHead | End | ReferenceHead | Refusal
ANSWERS: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])
Answers = Iterator[
    tuple[Described | End, None] | tuple[FrameHead, Array] | tuple[ReferenceHead, Array | None]
]


def read(data: bytes, *, key: bytes, policy: Policy, whose: Whose, with_original: bool) -> Answers:
    """A file's description, then its frames and its end, or what is kept of a reference.

    Raises Refused at any point.
    """
    volume = _volume(data)
    dataset = volume.dataset
    kind = pixels.check_kind(dataset)
    is_reference = kind.fate is Fate.REFERENCE
    kept_uid = partial(deidentify.kept_uid, key=key, policy=policy)
    study_uid = kept_uid(str(dataset.StudyInstanceUID))
    named = deidentify.whose(dataset, mapped=whose.mapped)
    # Two patients taken for one would let what is learnt judge itself.
    identity = named or whose.unnamed or f"study\0{study_uid}"
    subject = deidentify.subject_name(dataset, identity, key=key, policy=policy)
    described = Described(
        subject=subject,
        is_named=named is not None,
        study_uid=study_uid,
        series_uid=kept_uid(str(dataset.SeriesInstanceUID)),
        sop_uid=kept_uid(str(dataset.SOPInstanceUID)),
        place=volume.place,
        is_reference=is_reference,
    )
    yield described, None
    header = deidentify.clean(
        dataset, key=key, patient=subject, policy=policy, is_reference=is_reference
    )
    original = None
    if with_original:
        shift = deidentify.date_shift_days(subject, key=key)
        original = original_of(dataset, header, pseudonym=subject, date_shift_days=shift)
    if is_reference:
        yield _reference(dataset, header, kind, original)
        return
    for frame in pixels.frames(dataset):
        if frame.number == 1:
            pixels.describe_pixels(header, frame.stored)
        yield _head(frame, header), frame.stored
    held_because = None if volume.is_volume else burned_in.reason_to_hold(header)
    yield _end(header, held_because, original), None


def _volume(data: bytes) -> Volume:
    """A file as a DICOM object, whatever it was."""
    if volumes.is_volume(data):
        return volumes.to_dicom(data)
    is_picture = pictures.is_picture(data)
    dataset = pictures.to_dicom(data) if is_picture else pixels.parse(data)
    return Volume(dataset, place=None, is_volume=False)


def _head(frame: Frame, header: Dataset) -> FrameHead:
    place = frame.geometry
    rows, columns = place.row_spacing_mm, place.column_spacing_mm
    image_type = tuple(str(word) for word in header.get("ImageType") or ())
    number = header.get("InstanceNumber")
    told_apart_by = [
        str(pixels.from_groups(header, frame.number, group, keyword))
        for group, keyword in _TELLS_APART
    ]
    told_apart_by.append("\\".join(image_type))
    return FrameHead(
        number=frame.number,
        dtype=frame.stored.dtype.str,
        values=frame.values,
        placed=Placed(
            shape=frame.stored.shape,
            kind=str(header.get("PhotometricInterpretation")),
            spacing_mm=None if rows is None or columns is None else (rows, columns),
            orientation=place.orientation,
            position=place.position,
            number=(
                int(number) if number is not None else 0,
                str(header.SOPInstanceUID),
                frame.number,
            ),
            told_apart_by=tuple(told_apart_by),
            is_localizer="LOCALIZER" in image_type,
        ),
    )


def _end(header: Dataset, held_because: Reason | None, original: Original | None) -> End:
    return End(
        sop_class_uid=str(header.SOPClassUID),
        modality=str(header.get("Modality") or "OT"),
        series_number=int(header.get("SeriesNumber") or 0),
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID") or ""),
        is_inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
        held_because=held_because,
        header=header.to_json_dict(),
        original=original,
    )


def _reference(
    dataset: Dataset, header: Dataset, kind: Kind, original: Original | None
) -> tuple[ReferenceHead, Array | None]:
    pixels = kept_pixels(dataset, kind)
    if pixels.keyword and "PhotometricInterpretation" not in header:
        header.PhotometricInterpretation = "MONOCHROME2"  # of a palette, which is not kept
    # A slide's label may show in any of its images, and nobody can be asked to look at all tiles.
    is_held = kind is kinds.WHOLE_SLIDE or header.get("BurnedInAnnotation") == "YES"
    head = ReferenceHead(
        sop_class_uid=str(header.SOPClassUID),
        modality=str(header.get("Modality") or kind.modality),
        series_number=int(header.get("SeriesNumber") or 0),
        is_held=is_held,
        header=header.to_json_dict(),
        pixels=pixels.keyword,
        transfer_syntax=pixels.transfer_syntax,
        size=len(pixels.value),
        original=original,
    )
    return head, np.frombuffer(pixels.value, np.uint8) if pixels.value else None


def packed(
    message: BaseModel, payload: memoryview | bytes = b""
) -> tuple[bytes, memoryview | bytes]:
    """A message, and the bytes that belong to it, as they go through the pipe."""
    text = message.model_dump_json().encode()
    return _LENGTHS.pack(len(text), len(payload)) + text, payload


@dataclass(frozen=True)
class Head:
    """What a message begins with: the lengths of its parts."""

    SIZE = _LENGTHS.size

    text: int
    payload: int

    @classmethod
    def unpack(cls, data: bytes) -> Head:
        """From ``SIZE`` bytes."""
        return cls(*_LENGTHS.unpack(data))


def main() -> None:
    """Answer requests until the other end goes away."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What native libraries print must not come between the messages, and may name a patient.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    while head := requests.read(Head.SIZE):
        lengths = Head.unpack(head)
        request = Request.model_validate_json(requests.read(lengths.text))
        data = requests.read(lengths.payload)
        _limit(request)
        _answer(answers, data, request)


def _answer(answers: BinaryIO, data: bytes, request: Request) -> None:
    key = bytes.fromhex(request.key)
    try:
        answer = read(
            data,
            key=key,
            policy=request.policy,
            whose=request.whose,
            with_original=request.with_original,
        )
        for message, array in answer:
            payload = b"" if array is None else array.data.cast("B")
            answers.writelines(packed(message, payload))
            answers.flush()
    except Refused as refused:
        refusal = Refusal(code=refused.code, message=refused.message)
    except MemoryError:
        refusal = Refusal(
            code="too_much_memory",
            message="Reading the file needs more memory than a file of its size may take.",
        )
    else:
        return
    answers.writelines(packed(refusal))
    answers.flush()


def _limit(request: Request) -> None:
    """What may be taken from here on."""
    hard = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_DATA, (request.memory_bytes, hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor_s = int(used.ru_utime + used.ru_stime) + request.processor_s
    resource.setrlimit(resource.RLIMIT_CPU, (processor_s, hard))


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path and Path(path).is_absolute()]
    main()
