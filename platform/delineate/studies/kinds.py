"""What becomes of a DICOM object, by its SOP class (PS3.4 B.5): one table. Values only.

Images are delineated. References are kept beside them, as they say something of the same patient
that other programs want back: what has been segmented, planned or measured. Everything else is
refused by name. docs/formats.md shows the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom._uid_dict import UID_dictionary


class Fate(StrEnum):
    """What becomes of objects of a kind."""

    IMAGE = "delineated"
    REFERENCE = "kept as a reference"
    REFUSED = "refused"


@dataclass(frozen=True)
class Kind:
    """Objects of which the same becomes, and what people call them."""

    name: str
    fate: Fate
    code: str = ""  # of the line in the report
    modality: str = ""  # of references that do not say theirs

    @property
    def sentence(self) -> str:
        """Why objects of the kind are not delineated; nothing for those that are."""
        if self.fate is Fate.REFERENCE:
            return f"Kept beside the images as a reference, not delineated: {self.name}."
        return f"Not an image that can be delineated: {self.name}." if self.code else ""


def _image(name: str) -> Kind:
    return Kind(name, Fate.IMAGE)


def _reference(name: str, modality: str) -> Kind:
    return Kind(name, Fate.REFERENCE, "kept_as_reference", modality)


def _refused(name: str, code: str = "unsupported_kind") -> Kind:
    return Kind(name, Fate.REFUSED, code)


STRUCTURES: Final = _reference("an RT structure set", "RTSTRUCT")
WHOLE_SLIDE: Final = _reference("a whole-slide image", "SM")
VIDEO: Final = _refused("a video", "video")
PRIVATE: Final = _refused("a private SOP class")
# Of the standard, and younger than this table: SOP classes that pydicom names in later releases.
UNLISTED: Final = _refused("a kind of object that is not known here")

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
# Each kind with its SOP classes: what follows _STORAGE, or where there is none of that, all of it.
KINDS: Final[tuple[tuple[Kind, str], ...]] = (
    (_image("radiography, mammography, intra-oral"), "1 1.1 1.1.1 1.2 1.2.1 1.3 1.3.1"),
    (_image("CT"), "2 2.1 2.2"),
    (_image("MR"), "4 4.1 4.3 4.4"),
    (_image("ultrasound, photoacoustic"), "3 3.1 6 6.1 6.2 6.3"),
    (_image("secondary capture"), "7 7.1 7.2 7.3 7.4"),
    (_image("angiography, fluoroscopy"), "12.1 12.1.1 12.2 12.2.1 12.3"),
    (_image("X-ray 3D, breast projection"), "13.1.1 13.1.2 13.1.3 13.1.4 13.1.5"),
    (_image("intravascular optical coherence tomography"), "14.1 14.2"),
    (_image("nuclear medicine, PET"), "5 20 128 128.1 130"),
    (
        _image("endoscopy, microscopy, photography, dermoscopy"),
        "77.1 77.2 77.1.1 77.1.2 77.1.3 77.1.4 77.1.7 77.1.8",
    ),
    (
        _image("ophthalmology"),
        "77.1.5.1 77.1.5.2 77.1.5.4 77.1.5.5 77.1.5.6 77.1.5.7",
    ),
    (_image("RT image"), "481.1 481.23 481.24"),
    (_reference("a segmentation", "SEG"), "66.4 66.7"),
    (_reference("an RT dose", "RTDOSE"), "481.2"),
    (STRUCTURES, "481.3"),
    (_reference("a parametric map", "OT"), "30"),
    (WHOLE_SLIDE, "77.1.6 77.1.9"),
    (VIDEO, "77.1.1.1 77.1.2.1 77.1.4.1"),
    (
        _refused("a structured report"),
        "88.1 88.2 88.3 88.4 88.11 88.22 88.33 88.34 88.35 88.40 88.50 88.65 88.67 88.68 88.69 "
        "88.70 88.71 88.72 88.73 88.74 88.75 88.76 88.77 90.1",
    ),
    (_refused("a selection of key objects"), "88.59"),
    (_refused("an encapsulated document"), "104.1 104.2 104.3 104.4 104.5"),
    (
        _refused("a presentation state"),
        "11.1 11.2 11.3 11.4 11.5 11.6 11.7 11.8 11.9 11.10 11.11 11.12 131",
    ),
    (
        _refused("a waveform"),
        "9.1 9.1.1 9.1.2 9.1.3 9.1.4 9.2.1 9.3.1 9.4.1 9.4.2 9.5.1 9.6.1 9.6.2 9.7.1 9.7.2 9.7.3 "
        "9.7.4 9.8.1",
    ),
    (_refused("raw data"), "66"),
    (_refused("a spectroscopy"), "4.2"),
    (_refused("a registration"), "66.1 66.3"),
    (_refused("fiducials"), "66.2"),
    (_refused("a mesh, point cloud or tractography"), "66.5 66.6 68.1 68.2"),
    (_refused("a mapping of values"), "67"),
    (_refused("an overlay, curve or table without an image"), "8 9 10 11 129"),
    (_refused("annotations of a slide"), "91.1"),
    (
        _refused("measurements of an eye"),
        "77.1.5.3 77.1.5.8 78.1 78.2 78.3 78.4 78.5 78.6 78.7 78.8 79.1 80.1 81.1 82.1",
    ),
    (
        _refused("a radiotherapy plan or treatment record"),
        "481.4 481.5 481.6 481.7 481.8 481.9 481.10 481.11 481.12 481.13 481.14 481.15 481.16 "
        "481.17 481.18 481.19 481.20 481.21 481.22 481.25 1.2.840.10008.5.1.4.34.1 "
        "1.2.840.10008.5.1.4.34.7 1.2.840.10008.5.1.4.34.10",
    ),
    (_refused("a protocol or inventory"), "200.1 200.2 200.3 200.7 200.8 201.1"),
    (
        _refused("an inspection of luggage or material"),
        "501.1 501.2.1 501.2.2 501.3 501.4 501.5 501.6 601.1 601.2",
    ),
    (
        _refused("a template or layout"),
        "1.2.840.10008.5.1.4.38.1 1.2.840.10008.5.1.4.39.1 1.2.840.10008.5.1.4.43.1 "
        "1.2.840.10008.5.1.4.44.1 1.2.840.10008.5.1.4.45.1",
    ),
)
_BY_CLASS: Final = {
    (suffix if suffix.startswith("1.2.840.") else _STORAGE + suffix): kind
    for kind, suffixes in KINDS
    for suffix in suffixes.split()
}
# What may come in: no sender is asked to try the others.
TAKEN: Final = frozenset(uid for uid, kind in _BY_CLASS.items() if kind.fate is not Fate.REFUSED)

# PS3.5 A.4.5 to A.4.9 and A.7: MPEG, HEVC, and streams of SMPTE.
_VIDEO_SYNTAXES: Final = ("1.2.840.10008.1.2.4.10", "1.2.840.10008.1.2.7.")


def kind_of(sop_class_uid: str) -> Kind:
    """What objects of a SOP class are here."""
    kind = _BY_CLASS.get(sop_class_uid)
    if kind is None:
        return UNLISTED if sop_class_uid in UID_dictionary else PRIVATE
    return kind


def is_video(transfer_syntax_uid: str) -> bool:
    """Whether the pixels are a film of few whole frames, which nothing here decodes."""
    return transfer_syntax_uid.startswith(_VIDEO_SYNTAXES)
