"""What is kept of a DICOM header, and who a patient becomes. Values only.

Kept is what is on the lists of kept_attributes.py, nothing else: no free text, no overlays, no
private elements but a few numbers. Numbers are kept as numbers and words only when they are known
ones, whatever a file calls them: a name in a field that is kept is not. UIDs are replaced by keyed
ones, so that what is sent again is recognised within a project and nothing can be matched outside
it; dates, where a project keeps any, are shifted by whole days, as many for each of a patient's
images.

That is less than PS3.15's Basic Profile with the options of a ``Policy`` allows.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Final, Literal, cast

import numpy as np
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping as snomed_of
from pydicom.uid import UID
from pydicom.valuerep import DSfloat, PersonName

from delineate.projects.privacy import Dates, Identities, Policy
from delineate.studies.archive import Refused
from delineate.studies.kept_attributes import (
    ALWAYS_KEPT,
    CODES,
    IDENTIFYING,
    KEPT_BY_OPTION,
    KEPT_OF_REFERENCES,
    MEANINGS,
    NAMES,
    REFERENCE_CODES,
    REFERENCE_UIDS,
    REFERENCE_WORDS,
    REPLACED_UIDS,
    SAFE_PRIVATE,
    SCREENS,
    WORDS,
    Option,
)
from delineate.studies.kinds import TAKEN

# What is erased: a pseudonym, a study's UID (ours), the id that its objects lie under.
Tombstoned = Literal["subject", "study", "objects"]

PSEUDONYM_CHARACTERS: Final = 12  # 60 bits: no collision among any project's patients
SHIFTED_AT_MOST_DAYS: Final = 3650  # into the past: no study lies in the future
OLDEST_YEARS: Final = 89  # older patients are few: they are all 90
_LONGEST_TEXT: Final = 64  # of LO, and of a subject's name here

# Directions: a letter for each axis, the strongest first (PS3.3 C.7.6.1.1.1).
_DIRECTION: Final = re.compile(r"(?!.*[AP].*[AP])(?!.*[RL].*[RL])(?!.*[HF].*[HF])[APRLHF]{1,3}")
_METHOD: Final = "Delineate allow-list 3"
_WHOLE: Final = {
    "IS": (-(2**31), 2**31 - 1),
    "US": (0, 2**16 - 1),
    "UL": (0, 2**32 - 1),
    "SL": (-(2**31), 2**31 - 1),
}
# Exactly so (PS3.5 6.2): what only begins like a date is none.
_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII)
_ZONE: Final = re.compile(r"[+-]\d{4}$", re.ASCII)
_AGE: Final = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_UNITS_A_YEAR: Final = {"D": 365, "W": 52, "M": 12, "Y": 1}
_IN_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+", re.ASCII)

# Letters and digits of what stands where a patient's number or name was.
_PLACEHOLDERS: Final = frozenset(
    {"anon", "anonymous", "anonymized", "anonymised", "deidentified", "unknown", "none", "noname"}
)

_CONTOUR: Final = tag_for_keyword("ContourData")

_Value = str | int | float


@dataclass(frozen=True)
class _Patient:
    """What is done with the values of one patient's files."""

    key: bytes
    policy: Policy
    shift_days: int
    is_reference: bool  # more is kept of them (kinds.py)

    @property
    def is_known(self) -> bool:
        return self.policy.identities is Identities.KEPT


def clean(
    dataset: Dataset, *, key: bytes, patient: str, policy: Policy, is_reference: bool = False
) -> Dataset:
    """The kept part of a header, saying what was done to it; the input is unchanged.

    ``patient`` is any text that is equal for all of a patient's files: their dates move together.
    """
    shift = 0 if policy.identities is Identities.KEPT else date_shift_days(patient, key=key)
    kept = _kept_elements(
        dataset, _Patient(key=key, policy=policy, shift_days=shift, is_reference=is_reference)
    )
    if is_reference:
        _label_anew(kept)
    _say_what_was_done(kept, policy)
    return kept


def date_shift_days(patient: str, *, key: bytes) -> int:
    """By how many days a patient's dates are moved: -3650 … -1, keyed per project."""
    digest = hmac.new(key, b"dates" + patient.encode(errors="replace"), hashlib.sha256).digest()
    return -1 - int.from_bytes(digest[:8], "big") % SHIFTED_AT_MOST_DAYS


def options_of(policy: Policy) -> list[Option]:
    """What of PS3.15 is done under a policy; nothing where identities are kept."""
    if policy.identities is Identities.KEPT:
        return []
    chosen = {
        Option.BASIC_PROFILE: True,
        Option.MODIFIED_DATES: policy.dates is Dates.SHIFTED,
        Option.PATIENT_CHARACTERISTICS: policy.patient_characteristics,
        Option.DEVICE_IDENTITY: policy.device,
        Option.SAFE_PRIVATE: policy.safe_private,
    }
    return [option for option in Option if chosen[option]]


def replace_uid(original: str, *, key: bytes) -> str:
    """A keyed UID under 2.25 (PS3.5 B.2): equal within a project, unrelated to the original."""
    digest = hmac.new(key, b"uid" + original.encode(errors="replace"), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def kept_uid(original: str, *, key: bytes, policy: Policy) -> str:
    """What a UID is here: replaced, or where identities are kept itself, if it is one at all."""
    is_kept = policy.identities is Identities.KEPT
    is_uid = len(original) <= _LONGEST_TEXT and _IN_UID.fullmatch(original)
    return original if is_kept and is_uid else replace_uid(original, key=key)


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


def whose(dataset: Dataset, *, mapped: Collection[str]) -> str | None:
    """Who a file itself names, else whom the upload's mappings name; None: nobody does.

    Raises Refused ``mapping_conflict``.
    """
    own = identity_of(dataset)
    if not mapped:
        return own
    if own is not None and not is_placeholder(dataset):
        if not names(dataset).issuperset(mapped):
            raise Refused(
                "mapping_conflict",
                "The file names another patient than subjects.csv does: take it out there, "
                "and merge the two subjects afterwards if they are one.",
            )
        return own
    if len(mapped) > 1:
        raise Refused("mapping_conflict", "Two mappings name different subjects for the file.")
    return identity_named(next(iter(mapped)))


def subject_name(dataset: Dataset, identity: str, *, key: bytes, policy: Policy) -> str:
    """What the patient of an identity is called here.

    The pseudonym, or where identities are kept the patient's own number and who gave it.
    """
    if policy.identities is Identities.KEPT and identity == identity_of(dataset):
        patient, issuer = _text(dataset, "PatientID"), _text(dataset, "IssuerOfPatientID")
        name = f"{patient} ({issuer})" if issuer else patient
        if patient and name.isprintable() and len(name) <= _LONGEST_TEXT:
            return name
    return pseudonym(identity, key=key)


def _say_what_was_done(kept: Dataset, policy: Policy) -> None:
    """PS3.15 E.1.1, step 6 and following."""
    if policy.identities is Identities.KEPT:
        kept.PatientIdentityRemoved = "NO"
        kept.LongitudinalTemporalInformationModified = "UNMODIFIED"
        return
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = _METHOD
    kept.DeidentificationMethodCodeSequence = _codes_of(policy)
    shifted = policy.dates is Dates.SHIFTED
    kept.LongitudinalTemporalInformationModified = "MODIFIED" if shifted else "REMOVED"


@cache
def _codes_of(policy: Policy) -> Sequence:
    return Sequence([_coded(option) for option in options_of(policy)])


def _coded(option: Option) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = str(option), "DCM"
    item.CodeMeaning = MEANINGS[option]
    return item


def _label_anew(kept: Dataset) -> None:
    """Labels that a segmentation or structure set must have, by number: theirs were free text."""
    if "SegmentSequence" in kept:
        kept.ContentLabel = "SEGMENTATION"
    for segment in kept.get("SegmentSequence", ()):
        segment.SegmentLabel = f"Segment {segment.get('SegmentNumber', '')}".strip()
    if "StructureSetROISequence" in kept:
        kept.StructureSetLabel = "STRUCTURES"
    for roi in kept.get("StructureSetROISequence", ()):
        roi.ROIName = f"ROI {roi.get('ROINumber', '')}".strip()


@cache
def _kept_tags(policy: Policy, *, is_reference: bool) -> frozenset[int]:
    keywords = set(ALWAYS_KEPT)
    if is_reference:
        keywords |= KEPT_OF_REFERENCES
    if policy.identities is Identities.KEPT:
        keywords |= IDENTIFYING
    if policy.identities is Identities.KEPT or policy.dates is Dates.SHIFTED:
        keywords |= KEPT_BY_OPTION[Option.MODIFIED_DATES]
    if policy.patient_characteristics:
        keywords |= KEPT_BY_OPTION[Option.PATIENT_CHARACTERISTICS]
    if policy.device:
        keywords |= KEPT_BY_OPTION[Option.DEVICE_IDENTITY]
    tags = (tag_for_keyword(keyword) for keyword in keywords)
    return frozenset(tag for tag in tags if tag is not None)


def _kept_elements(dataset: Dataset, patient: _Patient) -> Dataset:
    kept = Dataset()
    tags = _kept_tags(patient.policy, is_reference=patient.is_reference)
    for tag in dataset.keys():  # noqa: SIM118 (iterating would parse values that are not kept)
        if tag not in tags:
            continue
        if tag == _CONTOUR:
            if numbers := _decimals(dataset.get_item(tag)):
                kept.add(DataElement(tag, "DS", numbers, already_converted=True))
            continue
        try:
            element = dataset[tag]
        except (ArithmeticError, ValueError, TypeError):  # pydicom's, for a number that is none
            continue
        vr = dictionary_VR(tag)  # not the file's: it may call a name a number
        if vr == "SQ":
            if element.VR == "SQ":
                kept.add(DataElement(tag, vr, _kept_items(element, patient)))
        elif " " in vr:  # "US or SS": of tables, which are read as such, and of single numbers
            is_little = dataset.original_encoding[1] is not False
            whole = _words_of(element.value, is_little=is_little) if patient.is_reference else []
            if len(whole) == 1:
                kept.add_new(tag, "SS" if whole[0] < 0 else "US", whole[0])
        elif values := _kept_values(element, vr=vr, patient=patient):
            kept.add(DataElement(tag, vr, values if len(values) > 1 else values[0]))
    if patient.policy.safe_private:
        _keep_safe_private(kept, dataset)
    return kept


def _decimals(element: DataElement | RawDataElement) -> list[float]:
    """All of a contour's numbers, or none: a million of them as objects of their own takes long."""
    value = element.value
    items = value.split(b"\\") if isinstance(value, bytes) else _many(value)
    try:
        numbers = [float(item) for item in items]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _kept_items(element: DataElement, patient: _Patient) -> Sequence:
    if element.keyword == "VOILUTSequence":
        tables = [_table(item) for item in element.value]
        return Sequence([table for table in tables if table is not None])
    if element.keyword in REFERENCE_CODES:
        codes = [_code(item) for item in element.value]
        return Sequence([code for code in codes if code is not None])
    return Sequence([_kept_elements(item, patient) for item in element.value])


def _kept_values(element: DataElement, *, vr: str, patient: _Patient) -> list[_Value]:
    """What is kept of an element's values: all of them, or none, so that none changes its place."""
    value, keyword = element.value, keyword_for_tag(element.tag)
    items: list[object] = (
        [value] if isinstance(value, str | bytes | PersonName) else list(_many(value))
    )
    if dictionary_VM(element.tag) == "1" and len(items) > 1:
        if keyword not in REPLACED_UIDS | REFERENCE_UIDS:
            return []
        items = [str(value)]  # it has backslashes, and names the file nevertheless
    if keyword == "ImageType":
        words = [str(item).strip() for item in items]
        known = WORDS[keyword] | SCREENS
        return [word if word in known or not word else "OTHER" for word in words]
    kept = [_kept_value(item, keyword, vr=vr, patient=patient) for item in items]
    present = [each for each in kept if each is not None]
    return present if len(present) == len(kept) else []


def _kept_value(item: object, keyword: str, *, vr: str, patient: _Patient) -> _Value | None:
    if item is None or isinstance(item, bytes):
        return None
    text = str(item).strip()
    if not text:
        return None
    if keyword in REPLACED_UIDS or keyword in REFERENCE_UIDS:
        return kept_uid(str(item), key=patient.key, policy=patient.policy)
    if patient.is_reference and keyword in REFERENCE_WORDS:
        return text if text in REFERENCE_WORDS[keyword] else None
    if keyword in WORDS:
        return text if text in WORDS[keyword] else None
    if keyword in NAMES:
        return NAMES[keyword].get(text.casefold())
    if keyword == "PatientOrientation":
        return text if _DIRECTION.fullmatch(text) else None
    if keyword in IDENTIFYING and vr != "DA":
        return text if text.isprintable() and len(text) <= _LONGEST_TEXT else None
    match vr:
        case "DA":
            return _shifted(text, days=patient.shift_days)
        case "TM":
            return text if _TIME.fullmatch(text) else None
        case "DT":
            return _shifted_datetime(text, days=patient.shift_days, keep_zone=patient.is_known)
        case "AS":
            return text if patient.is_known and _AGE.fullmatch(text) else _age(text)
        case "UI":
            uid = UID(str(item), IGNORE)
            # Unknown ones may be anything.
            return uid if uid.name != uid or uid in TAKEN else None
        case "AT":
            return int(item) if isinstance(item, int) and keyword_for_tag(item) else None
    return _number(item, vr=vr)


def _shifted(text: str, *, days: int) -> str | None:
    """A date (DA) moved by whole days; None for what is no date."""
    parts = _DATE.fullmatch(text)
    if parts is None:
        return None
    try:
        moved = date(*(int(part) for part in parts.groups())) + timedelta(days=days)
    except (ValueError, OverflowError):  # no such day, or none so long ago
        return None
    return f"{moved:%Y%m%d}".rjust(8, "0")  # a year below 1000 is written short


def _shifted_datetime(text: str, *, days: int, keep_zone: bool) -> str | None:
    """A date and time (DT) moved by whole days; its zone, which says where somebody is, goes."""
    local = _ZONE.sub("", text)
    moved = _shifted(local[:8], days=days)
    if moved is None or (local[8:] and not _TIME.fullmatch(local[8:])):
        return None
    return moved + local[8:] + (text[len(local) :] if keep_zone else "")


def _age(text: str) -> str | None:
    parts = _AGE.fullmatch(text)
    if parts is None:
        return None
    is_old = int(parts[1]) // _UNITS_A_YEAR[parts[2]] > OLDEST_YEARS
    return f"{OLDEST_YEARS + 1:03d}Y" if is_old else text


def _table(item: Dataset) -> Dataset | None:
    """A table of a window's kind (PS3.3 C.11.2.1.1) that is as long and as deep as it says."""
    is_little = item.original_encoding[1] is not False
    descriptor = _words_of(item.get("LUTDescriptor"), is_little=is_little)
    data = _words_of(item.get("LUTData"), is_little=is_little)
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        return None
    if len(data) != (descriptor[0] or 2**16) or max(data) >= 2 ** descriptor[2]:
        return None
    table = Dataset()
    # Signed as in the file: which it is depends on the pixels.
    table.add_new("LUTDescriptor", "SS" if descriptor[1] < 0 else "US", descriptor)
    table.add_new("LUTData", "US", data)
    return table


def _code(item: Dataset) -> Dataset | None:
    """A code of a known scheme, in the scheme's own words."""
    scheme, value = _text(item, "CodingSchemeDesignator"), _text(item, "CodeValue")
    meaning = _meaning_of(scheme, value)
    pattern = CODES.get(scheme)
    if pattern is None or not (meaning or (re.fullmatch(pattern, value, re.ASCII) and value)):
        return None
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value, scheme
    code.CodeMeaning = meaning or value
    return code


def _meaning_of(scheme: str, value: str) -> str:
    """What PS3.16 calls a code; nothing where it does not know it."""
    if scheme == "SRT":
        scheme, value = "SCT", snomed_of["SRT"].get(value, "")
    return _meanings(scheme).get(value, "")


@cache
def _meanings(scheme: str) -> dict[str, str]:
    names = cast("dict[str, dict[str, tuple[str, list[int]]]]", concepts.get(scheme, {}))
    return {code: meaning for codes in names.values() for code, (meaning, _) in codes.items()}


def _words_of(value: object, *, is_little: bool) -> list[int]:
    """Whole numbers of sixteen bits, also where a file gives them as bytes."""
    if isinstance(value, bytes):
        even = value[: len(value) // 2 * 2]
        return [int(each) for each in np.frombuffer(even, "<u2" if is_little else ">u2")]
    numbers = [_number(item, vr="IS") for item in _many(value)]
    whole = [number for number in numbers if isinstance(number, int)]
    in_range = all(-(2**15) <= number < 2**16 for number in whole)
    return whole if in_range and len(whole) == len(numbers) else []


def _keep_safe_private(kept: Dataset, dataset: Dataset) -> None:
    groups = {tag >> 16 for tag in dataset.keys()}  # noqa: SIM118 (as above)
    for safe in SAFE_PRIVATE:
        if safe.group not in groups:
            continue
        try:
            element = dataset.private_block(safe.group, safe.creator)[safe.offset]
        except KeyError:  # neither that creator, or not this of its elements
            continue
        value = element.value
        items = [value] if isinstance(value, str | bytes | PersonName) else list(_many(value))
        numbers = [_number(item, vr=safe.vr) for item in items]
        if numbers and None not in numbers and len(numbers) <= safe.values_at_most:
            block = kept.private_block(safe.group, safe.creator, create=True)
            block.add_new(safe.offset, safe.vr, numbers if len(numbers) > 1 else numbers[0])


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
