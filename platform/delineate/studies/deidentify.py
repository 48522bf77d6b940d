"""What is kept of a DICOM header, and who a patient becomes. Values only.

Kept is what is on the lists below, nothing else: no dates, no free text, no private elements, no
overlays. Numbers are kept as numbers and words only when they are known ones, whatever a file calls
them: a name in a field that is kept is not. UIDs are replaced by keyed ones, so that what is sent
again is recognised within a project and nothing can be matched outside it (PS3.15 E.1, with an
allow-list in place of its table).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Iterable
from typing import Final, Literal

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

# What is erased: a pseudonym, a study's UID (ours), the id that its objects lie under.
Tombstoned = Literal["subject", "study", "objects"]

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

# Attributes in words, and the words that are kept (PS3.3 defined terms, PS3.16 annex L).
_WORDS: Final = {
    keyword: frozenset(words.split())
    for keyword, words in {
        "Modality": (
            "CR CT DX ES GM IO IVOCT MG MR NM OCT OP OPT OT PT PX RF RG RTIMAGE SC SM US XA XC"
        ),
        "ImageType": (
            "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER REFORMATTED MPR PROJECTION "
            "VOLUME MIP MINIP AVERAGE RESAMPLED DIXON WATER FAT IN_PHASE OUT_PHASE ADC "
            "DIFFUSION TRACEW FA M FFE SE IR P R I MAGNITUDE PHASE REAL IMAGINARY MOSAIC NORM "
            "DIS2D DIS3D FM ND SUBTRACT PERFUSION T1 T2 T2_STAR PROTON_DENSITY FLUOROSCOPY "
            "ANGIO STATIC DYNAMIC GATED WHOLE BODY TOMO RECON EMISSION TRANSMISSION BIPLANE "
            "SINGLE A B NONE OTHER"
        ),
        "PatientPosition": "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS",
        "BodyPartExamined": (
            "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST "
            "BRONCHUS CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN "
            "CHESTABDPELVIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY CSPINE CTSPINE DUODENUM "
            "EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT FOREARM "
            "GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS ILEUM ILIUM JAW JEJUNUM KIDNEY "
            "KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MANDIBLE MAXILLA MEDIASTINUM NECK "
            "NECKCHEST NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE "
            "RECTUM RIB SCALP SCAPULA SCLERA SCROTUM SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM "
            "STOMACH TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TLSPINE TMJ TOE TONGUE "
            "TRACHEA TSPINE ULNA URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA "
            "PHANTOM"
        ),
        "Laterality": "R L U B",
        "ImageLaterality": "R L U B",
        "ViewPosition": "AP PA LL RL RLD LLD RLO LLO CC MLO ML LM XCCL XCCM ISO",
        "PhotometricInterpretation": (
            "MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT"
        ),
        "RescaleType": "HU US OD HU_MOD PCT MGML Z_EFF ED EDW STRESS",
        "VOILUTFunction": "LINEAR LINEAR_EXACT SIGMOID",
        "BurnedInAnnotation": "YES NO",
        "LossyImageCompression": "00 01",
    }.items()
}

_KEPT: Final = (
    _UIDS
    | _WORDS.keys()
    | {
        # What kind of object it is.
        "SOPClassUID",
        "SeriesNumber",
        "InstanceNumber",
        "NumberOfFrames",
        # How its pixels are stored and shown.
        "SamplesPerPixel",
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
        "WindowCenter",
        "WindowWidth",
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
    }
)
# Letters and digits of what stands where a patient's number or name was.
_PLACEHOLDERS: Final = frozenset(
    {"anon", "anonymous", "anonymized", "anonymised", "deidentified", "unknown", "none", "noname"}
)
_KEPT_TAGS: Final = frozenset(tag_for_keyword(keyword) for keyword in _KEPT)
_METHOD: Final = "Delineate allow-list 2"
_WHOLE: Final = {"IS": (-(2**31), 2**31 - 1), "US": (0, 2**16 - 1), "UL": (0, 2**32 - 1)}


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


def identity_named(subject: str) -> str:
    """Who a sender's own mapping names: the same patient as one whose PatientID that is."""
    return "\0".join(["id", "", subject])


def names(dataset: Dataset) -> set[str]:
    """What a header calls its patient."""
    return {_text(dataset, "PatientID"), _text(dataset, "PatientName")} - {""}


def is_placeholder(dataset: Dataset) -> bool:
    """Whether what names the patient is what anonymizers write in place of a name."""
    said = _text(dataset, "PatientID") or _text(dataset, "PatientName")
    return "".join(filter(str.isalnum, said)).casefold() in _PLACEHOLDERS


def pseudonym(identity: str, *, key: bytes) -> str:
    """A patient's name here: "S-" and twelve letters and digits, keyed per project."""
    digest = hmac.new(key, b"subject" + identity.encode(errors="replace"), hashlib.sha256).digest()
    return f"S-{base64.b32encode(digest).decode()[:PSEUDONYM_CHARACTERS]}"


def tombstone(kind: Tombstoned, name: str, *, key: bytes) -> str:
    """What is remembered of something erased: enough to know it again, under the project's key."""
    content = f"tombstone\0{kind}\0{name}".encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _kept_elements(dataset: Dataset, *, key: bytes) -> Dataset:
    kept = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 (iterating would parse values that are not kept)
        if tag not in _KEPT_TAGS:
            continue
        element = dataset[tag]
        vr = dictionary_VR(tag)  # not the file's: it may call a name a number
        if vr == "SQ":
            if element.VR == "SQ":
                items = [_kept_elements(item, key=key) for item in element.value]
                kept.add(DataElement(tag, vr, Sequence(items)))
        elif values := _kept_values(element, vr=vr, key=key):
            kept.add(DataElement(tag, vr, values if len(values) > 1 else values[0]))
    return kept


def _kept_values(element: DataElement, *, vr: str, key: bytes) -> list[str | int | float]:
    """What is kept of an element's values: all of them, or none, so that none changes its place."""
    value, keyword = element.value, element.keyword
    items = [value] if isinstance(value, str | bytes) else list(_many(value))
    if dictionary_VM(element.tag) == "1" and len(items) > 1:
        return []
    if keyword in _UIDS:
        return [replace_uid(str(value), key=key)] if items else []
    if keyword == "ImageType":
        words = [str(item).strip() for item in items]
        return [word if word in _WORDS[keyword] or not word else "OTHER" for word in words]
    if keyword in _WORDS:
        words = [str(item).strip() for item in items]
        return list(words) if _WORDS[keyword].issuperset(words) else []
    if vr == "UI":
        uid = UID(str(value), IGNORE)
        return [uid] if uid.name != uid else []  # unknown ones may be anything
    numbers = [_number(item, vr=vr) for item in items]
    kept = [number for number in numbers if number is not None]
    return list(kept) if len(kept) == len(numbers) else []


def _many(value: object) -> Iterable[object]:
    if value is None:
        return []
    return value if isinstance(value, Iterable) else [value]


def _number(item: object, *, vr: str) -> int | float | None:
    """A finite number that fits its VR (PS3.5 6.2); None for anything else."""
    if isinstance(item, bytes):
        return None
    try:
        number = float(str(item))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if vr in _WHOLE:
        low, high = _WHOLE[vr]
        return int(number) if number.is_integer() and low <= number <= high else None
    return DSfloat(number, auto_format=True) if vr == "DS" else number


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()
