"""Files with a name, a birthday and UIDs planted wherever a file of their kind can carry one."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, Final

import nibabel
import nrrd
import numpy as np
import pydicom
from nibabel.nifti1 import Nifti1Extension
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from delineate.studies.kept_attributes import SAFE_PRIVATE
from tests.delineate.studies.files import image

NAME: Final = "ZANZIBARD"
BIRTHDAY: Final = "19330307"
UID: Final = "1.2.826.7777"
# All value representations (PS3.5 6.2) that hold anything but sequences.
VRS: Final = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF"),
    *("OL", "OV", "OW", "PN", "SH", "SL", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR"),
    *("US", "UT", "UV"),
)
# Those of numbers: their attributes are given other kinds, too.
NUMBERS: Final = {
    *(
        "AT",
        "DS",
        "FD",
        "FL",
        "IS",
        "OD",
        "OF",
        "OL",
        "OV",
        "OW",
        "SL",
        "SS",
        "SV",
        "UL",
        "US",
        "UV",
    ),
}
# Where people write names in segmentations, doses and structure sets.
TEXTS: Final = (
    *("PatientName", "PatientID", "TextValue", "LUTExplanation", "SegmentLabel", "ROIName"),
    *("SegmentDescription", "SegmentAlgorithmName", "TrackingID", "TrackingUID", "CodeMeaning"),
    *("ROIDescription", "ROIObservationLabel", "ROIInterpreter", "ContentLabel", "LUTLabel"),
    *("OperatorsName", "RetrieveAETitle", "ReferencedFileID"),
)
# Without these in order there is no image to read.
NEEDED: Final = {
    *("SpecificCharacterSet", "PhotometricInterpretation", "SOPClassUID", "StudyInstanceUID"),
    *("SeriesInstanceUID", "SOPInstanceUID", "PixelData", "TransferSyntaxUID"),
}


def planted(name: str) -> bytes:
    """A name of a length that every value representation takes: sixteen bytes."""
    return name.encode().ljust(16)


def plant(dataset: Dataset, tag: int, vr: str, value: bytes | None = None) -> None:
    """Put bytes into an element as a file may have them, whatever its value representation."""
    if value is None:
        value = planted({"DA": BIRTHDAY, "DT": BIRTHDAY + "1011", "UI": f"{UID}.5"}.get(vr, NAME))
        value = value.rstrip() if vr == "DA" else value
    at = Tag(tag)
    # Not by item: that would read it.
    dataset._dict[at] = RawDataElement(at, vr, len(value), value, 0, False, True)


def full_of_names(
    *,
    series: str = f"{UID}.9",
    kind: str | None = None,
    everywhere: bool = False,
) -> Dataset:
    """A CT image with names as every VR and at every depth; ``everywhere``: in every attribute."""
    dataset = image(study=UID, series=series, sop=f"{series}.1")
    if kind is not None:
        dataset.SOPClassUID = kind
    _plant_in_attributes(dataset, every=1 if everywhere else 40)
    _plant_in_private_elements(dataset)
    _plant_in_sequences(dataset, depth=5)
    _plant_in_repeating_groups(dataset)
    _plant_around(dataset)
    return dataset


def reference_full_of_names(made: Dataset) -> Dataset:
    """A segmentation, dose or structure set with names in every attribute and at every depth."""
    dataset = pydicom.dcmread(io.BytesIO(_saved_dataset(made)))
    dataset.StudyInstanceUID = UID
    _plant_deep(dataset)
    _plant_in_attributes(dataset, every=1)
    _plant_in_private_elements(dataset)
    _plant_around(dataset)
    return dataset


def written(dataset: Dataset) -> bytes:
    """As a file, its preamble kept."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    assert data.startswith(NAME.encode())
    return data


def nifti() -> bytes:
    """A volume with names in every free field of its header, in extensions and after its end."""
    made = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.eye(4))
    for field in ("descrip", "aux_file", "db_name", "intent_name", "data_type"):
        made.header[field] = NAME.encode()
    made.header.extensions.append(Nifti1Extension("comment", NAME.encode()))
    made.header.extensions.append(Nifti1Extension("ignore", NAME.encode()))
    return bytes(made.to_bytes()) + NAME.encode()


def nrrd_volume() -> bytes:
    """A volume with names in comments, fields and pairs."""
    buffer = io.BytesIO()
    nrrd.write(
        buffer,
        np.arange(60, dtype=np.int16).reshape(5, 4, 3) + 7,
        {"content": NAME, NAME: NAME, "encoding": "raw"},
    )
    lines = buffer.getvalue().split(b"\n", 1)
    return lines[0] + f"\n# {NAME}\n".encode() + lines[1]


def png() -> bytes:
    """A picture with names in all kinds of text, in EXIF and after its end."""
    text = PngInfo()
    text.add_text("Author", NAME)
    text.add_text("Comment", NAME, zip=True)
    text.add_itxt("XML:com.adobe.xmp", NAME)
    return _saved(1, "PNG", pnginfo=text, exif=_exif()) + NAME.encode()


def jpeg() -> bytes:
    """The same as JPEG: EXIF, XMP, comment."""
    return _saved(2, "JPEG", exif=_exif(), xmp=NAME.encode(), comment=NAME.encode()) + NAME.encode()


def tiff() -> bytes:
    """The same as TIFF: its tags, known and private."""
    tags = {270: NAME, 305: NAME, 315: NAME, 33432: NAME, 65000: NAME}
    return _saved(3, "TIFF", tiffinfo=tags)


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip with names in its comment, and in its members' comments and extra fields."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = NAME.encode()
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.comment = NAME.encode()
            member.extra = struct.pack("<HH", 0x7777, len(NAME)) + NAME.encode()
            archive.writestr(member, content)
    return buffer.getvalue()


def _plant_deep(dataset: Dataset) -> None:
    """In every text of every item, and in texts that no item of its kind has."""
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                for keyword in TEXTS:
                    plant(item, Tag(keyword), dictionary_VR(keyword))
                _plant_deep(item)


def _saved_dataset(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _plant_in_attributes(dataset: Dataset, *, every: int) -> None:
    """Every attribute of the standard, as its own VR or where that is a number's as another."""
    for number, tag in enumerate(DicomDictionary):
        keyword = keyword_for_tag(tag)
        if tag < 0x00080000 or keyword in NEEDED or tag in dataset or number % every:
            continue
        vr = dictionary_VR(tag)
        if vr in ("SQ", "NONE") or tag >> 16 in (0xFFFE, 0x7FE0):
            continue
        # Of pixels, how they lie: left out where it would only make the image unreadable.
        if tag >> 16 == 0x0028 and vr not in ("LO", "CS", "UI", "LT", "ST", "UT"):
            continue
        is_number = vr in NUMBERS or " " in vr
        # A birthday is a number, too: where numbers belong, a number is kept.
        value = planted(NAME) if is_number else None
        plant(dataset, tag, VRS[number % len(VRS)] if is_number else vr, value)
    for keyword in ("PatientID", "PatientName", "IssuerOfPatientID", "PatientBirthDate"):
        plant(dataset, Tag(keyword), dictionary_VR(keyword))
    for keyword in ("KVP", "EchoTime", "SliceLocation", "MagneticFieldStrength"):
        plant(dataset, Tag(keyword), dictionary_VR(keyword))


def _plant_in_private_elements(dataset: Dataset) -> None:
    creators = {(0x0011, NAME), (0x0013, "ACME")} | {(s.group, s.creator) for s in SAFE_PRIVATE}
    safe_places = {(s.group, s.creator, s.offset) for s in SAFE_PRIVATE}
    for group, creator in sorted(creators):
        block = dataset.private_block(group, creator, create=True)
        for offset in range(0x40):
            is_safe = (group, creator, offset) in safe_places
            plant(dataset, block.get_tag(offset), "LO" if is_safe else VRS[offset % len(VRS)])


def _plant_in_sequences(dataset: Dataset, *, depth: int) -> None:
    if depth == 0:
        return
    for keyword in (
        *("OtherPatientIDsSequence", "ContentSequence", "DigitalSignaturesSequence"),
        *("IconImageSequence", "SharedFunctionalGroupsSequence", "FrameContentSequence"),
        *("VOILUTSequence", "RequestAttributesSequence", "DeidentificationMethodCodeSequence"),
    ):
        if depth < 5 and keyword != "ContentSequence":
            continue
        item = Dataset()
        for attribute in ("PatientName", "PatientID", "TextValue", "LUTExplanation", "CodeMeaning"):
            plant(item, Tag(attribute), dictionary_VR(attribute))
        plant(item, Tag("PixelData"), "OW")
        plant(item, Tag("LUTData"), "OW")
        item.add_new("LUTDescriptor", "US", [8, 0, 16])
        if keyword == "SharedFunctionalGroupsSequence":
            _plant_in_private_elements(item)
        if keyword == "ContentSequence":
            _plant_in_sequences(item, depth=depth - 1)
        setattr(dataset, keyword, Sequence([item]))


def _plant_in_repeating_groups(dataset: Dataset) -> None:
    for group in (0x5000, 0x5002, 0x6000, 0x6002):
        plant(dataset, group << 16 | 0x0022, "LO")
        plant(dataset, group << 16 | 0x1500, "LO")
        plant(dataset, group << 16 | 0x3000, "OW")


def _plant_around(dataset: Dataset) -> None:
    meta: Any = dataset.file_meta
    meta.ImplementationVersionName = NAME
    meta.SourceApplicationEntityTitle = NAME
    meta.SendingApplicationEntityTitle = NAME
    meta.PrivateInformationCreatorUID = f"{UID}.6"
    meta.PrivateInformation = planted(NAME)
    dataset.preamble = NAME.encode().ljust(128, b"\0")
    plant(dataset, 0xFFFCFFFC, "OB")  # Data Set Trailing Padding


def _saved(seed: int, format: str, **more: Any) -> bytes:
    values = np.random.default_rng(seed).integers(0, 255, (8, 10), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format, **more)
    data = buffer.getvalue()
    assert NAME.encode() in data
    return data


def _exif() -> Image.Exif:
    exif = Image.Exif()
    for tag in (270, 305, 315, 33432):  # description, software, artist, copyright
        exif[tag] = NAME
    return exif


PICTURES_AND_VOLUMES: Final[dict[str, Callable[[], bytes]]] = {
    "nii": nifti,
    "nrrd": nrrd_volume,
    "png": png,
    "jpg": jpeg,
    "tif": tiff,
}
