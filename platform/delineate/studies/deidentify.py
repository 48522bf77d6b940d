"""What is kept of a DICOM header, and who a patient becomes. Values only.

Kept is what is on the list below, nothing else: no dates, no free text, no private elements, no
overlays. UIDs are replaced by keyed ones, so that what is sent again is recognised within a project
and nothing can be matched outside it (PS3.15 E.1, with an allow-list in place of its table).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence

PSEUDONYM_CHARACTERS: Final = 12  # 60 bits: no collision among any project's patients

# Attributes whose value is a UID of the patient's data: replaced.
_UIDS: Final = frozenset(
    {
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
        "DimensionOrganizationUID",
    }
)

_KEPT: Final = _UIDS | {
    # What kind of object it is.
    "SOPClassUID",
    "Modality",
    "ImageType",
    "PatientPosition",
    "BodyPartExamined",
    "Laterality",
    "ImageLaterality",
    "ViewPosition",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    # How its pixels are stored and shown.
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelAspectRatio",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "BurnedInAnnotation",
    "LossyImageCompression",
    # Where it lies.
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "GantryDetectorTilt",
    # How it was acquired, in numbers.
    "KVP",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    # The same in enhanced multi-frame objects (PS3.3 C.7.6.16): sequences are cleaned inside.
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "FrameContentSequence",
    "DimensionIndexValues",
    "InStackPositionNumber",
    "StackID",
}
_KEPT_TAGS: Final = frozenset(tag_for_keyword(keyword) for keyword in _KEPT)
_METHOD: Final = "Delineate allow-list 1"


def clean(dataset: Dataset, *, key: bytes) -> Dataset:
    """The kept part of a header, UIDs replaced, marked as de-identified; the input is unchanged."""
    kept = _kept_elements(dataset, key=key)
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = _METHOD
    return kept


def replace_uid(original: str, *, key: bytes) -> str:
    """A keyed UID under 2.25 (PS3.5 B.2): equal within a project, unrelated to the original."""
    digest = hmac.new(key, b"uid" + original.encode(errors="replace"), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def identity_of(dataset: Dataset) -> str | None:
    """What tells this patient from others, None when the header says nothing."""
    patient = _text(dataset, "PatientID")
    if patient:
        return "\0".join(["id", _text(dataset, "IssuerOfPatientID"), patient])
    name = _text(dataset, "PatientName")
    return "\0".join(["name", name, _text(dataset, "PatientBirthDate")]) if name else None


def pseudonym(identity: str, *, key: bytes) -> str:
    """A patient's name here: "S-" and twelve letters and digits, keyed per project."""
    digest = hmac.new(key, b"subject" + identity.encode(errors="replace"), hashlib.sha256).digest()
    return f"S-{base64.b32encode(digest).decode()[:PSEUDONYM_CHARACTERS]}"


def _kept_elements(dataset: Dataset, *, key: bytes) -> Dataset:
    kept = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 (iterating would parse values that are not kept)
        if tag not in _KEPT_TAGS:
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            items = [_kept_elements(item, key=key) for item in element.value]
            kept.add(DataElement(tag, "SQ", Sequence(items)))
        elif element.keyword in _UIDS:
            kept.add(DataElement(tag, "UI", replace_uid(str(element.value), key=key)))
        else:
            kept.add(DataElement(tag, element.VR, element.value))
    return kept


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()
