"""Which images may show a patient's name in their pixels, judged by a cleaned header. Values only.

Ultrasound machines write the name into the picture, and captures of a screen show whatever stood on
it: both are looked at by a person first. What a header says can hold an image back and never clears
one: BurnedInAnnotation NO is set by habit. CT, MR, PET and radiographs carry what they say in their
headers, photographs and endoscopies mostly: they are held when they are flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pydicom import Dataset
from pydicom.sequence import Sequence


class Reason(StrEnum):
    """Why an image is held, the most telling first."""

    ANNOTATED = "burned_in_annotation"
    RECOGNIZABLE = "recognizable_features"
    SCREEN_SAVE = "screen_save"
    ULTRASOUND = "ultrasound"
    SECONDARY_CAPTURE = "secondary_capture"


SENTENCES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.ANNOTATED: "Its header says that there is text in the pixels.",
        Reason.RECOGNIZABLE: "Its header says that a person can be recognised in it.",
        Reason.SCREEN_SAVE: "It is a picture of a screen, and may show what stood on it.",
        Reason.ULTRASOUND: "Ultrasound machines often write the patient's name into the image.",
        Reason.SECONDARY_CAPTURE: "Captured or converted pictures may show a patient's name.",
    }
)

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
# PS3.4 B.5, the retired ones too.
_ULTRASOUND: Final = frozenset(_STORAGE + suffix for suffix in ("3", "3.1", "6", "6.1", "6.2"))
_CAPTURES: Final = frozenset(_STORAGE + suffix for suffix in ("7", "7.1", "7.2", "7.3", "7.4"))
_UNTOLD: Final = ("OT", "SC", "")  # modalities that say nothing of where an image comes from
_DERIVED: Final = frozenset({"DERIVED", "SECONDARY"})
# PS3.16 CID 7050.
_CLEAN_PIXEL_DATA: Final = ("113101", "DCM", "Clean Pixel Data Option")


def reason_to_hold(header: Dataset) -> Reason | None:
    """Why a person must look at the image before others do; None where nothing speaks for it."""
    modality = str(header.get("Modality") or "")
    sop_class = str(header.get("SOPClassUID") or "")
    image_type = _words(header.get("ImageType"))
    if header.get("BurnedInAnnotation") == "YES":
        return Reason.ANNOTATED
    if header.get("RecognizableVisualFeatures") == "YES":
        return Reason.RECOGNIZABLE
    if any("SCREEN" in word for word in image_type) or (
        modality in _UNTOLD and image_type >= _DERIVED
    ):
        return Reason.SCREEN_SAVE
    if modality == "US" or sop_class in _ULTRASOUND:
        return Reason.ULTRASOUND
    if modality == "SC" or sop_class in _CAPTURES:
        return Reason.SECONDARY_CAPTURE
    return None


def most_telling(reasons: Iterable[Reason | None]) -> Reason | None:
    """Of the reasons of a series' images: one that is held holds them all."""
    given = set(reasons)
    return next((reason for reason in Reason if reason in given), None)


def say_cleaned(header: Dataset) -> None:
    """Write into a header that a person has looked at its pixels and taken out what was there."""
    header.BurnedInAnnotation = "NO"
    methods = list(header.get("DeidentificationMethodCodeSequence") or [])
    if not any(method.get("CodeValue") == _CLEAN_PIXEL_DATA[0] for method in methods):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _CLEAN_PIXEL_DATA
        methods.append(code)
    header.DeidentificationMethodCodeSequence = Sequence(methods)


def _words(value: str | Iterable[str] | None) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value or ())
