"""The lists of what is kept, held to PS3.15 Table E.1-1, and to the page that shows them.

The table is the copy that dicom-anonymizer generates from the standard (2026c). It has the Basic
Profile's actions; the columns of the options are said here, for what we keep by them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword

from delineate.studies.kept_attributes import (
    ALWAYS_KEPT,
    IDENTIFYING,
    KEPT_BY_OPTION,
    KEPT_OF_REFERENCES,
    NAMES,
    REFERENCE_CODES,
    REFERENCE_UIDS,
    REFERENCE_WORDS,
    REPLACED_UIDS,
    SAFE_PRIVATE,
    WORDS,
    Option,
)

PAGE = Path(__file__).parents[3] / "docs/deidentification.md"
ACTIONS = ("D", "Z", "X", "U", "Z_D", "X_Z", "X_D", "X_Z_D", "X_Z_U_STAR")
# The columns of Table E.1-1 for what an option lets stay: C cleaned, K kept.
OPTION_COLUMNS = {
    Option.MODIFIED_DATES: {
        "StudyDate": "C",
        "StudyTime": "C",
        "SeriesDate": "C",
        "SeriesTime": "C",
        "AcquisitionDate": "C",
        "AcquisitionTime": "C",
        "AcquisitionDateTime": "C",
        "ContentDate": "C",
        "ContentTime": "C",
        "FrameAcquisitionDateTime": "C",
        "FrameReferenceDateTime": "C",
    },
    Option.PATIENT_CHARACTERISTICS: {
        "PatientSex": "K",
        "PatientAge": "K",
        "PatientSize": "K",
        "PatientWeight": "K",
    },
}
OF_UIDS = {"ReferencedImageSequence", "SourceImageSequence"}
OPTION_NAMES = {
    Option.MODIFIED_DATES: "Dates, moved",
    Option.PATIENT_CHARACTERISTICS: "Patient characteristics",
    Option.DEVICE_IDENTITY: "Device",
}


def action_of(keyword: str) -> str | None:
    """The Basic Profile's action; None for what its table does not name."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    found = [
        action
        for action in ACTIONS
        if (tag >> 16, tag & 0xFFFF) in getattr(table, f"{action}_TAGS")
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_the_table_is_whole():
    """Otherwise to be on none of its lists would mean nothing."""
    assert len(table.ALL_TAGS) > 600
    samples = ("PatientID", "StudyDate", "StudyDescription", "StudyInstanceUID")
    assert [action_of(each) for each in samples] == ["Z_D", "Z", "X", "U"]


@pytest.mark.parametrize("keyword", sorted(ALWAYS_KEPT - REPLACED_UIDS))
def test_what_is_always_kept_is_none_of_the_tables(keyword):
    assert action_of(keyword) is None


@pytest.mark.parametrize("keyword", sorted(KEPT_OF_REFERENCES - REFERENCE_UIDS))
def test_what_is_kept_of_references_is_none_of_the_tables_but_for_groups_of_uids(keyword):
    # U*: a group may stay when the UIDs in it are replaced, which those in all groups are.
    assert action_of(keyword) in ({"X_Z_U_STAR", None} if keyword in OF_UIDS else {None})


def test_references_keep_nothing_twice_and_their_words_are_words():
    assert not KEPT_OF_REFERENCES & ALWAYS_KEPT
    assert REFERENCE_WORDS.keys() <= KEPT_OF_REFERENCES | WORDS.keys()
    assert all(dictionary_VR(keyword) == "CS" for keyword in REFERENCE_WORDS)
    assert all(dictionary_VR(keyword) == "SQ" for keyword in REFERENCE_CODES)


@pytest.mark.parametrize("keyword", sorted(REPLACED_UIDS | REFERENCE_UIDS))
def test_uids_are_replaced_as_the_table_wants_it(keyword):
    assert action_of(keyword) == "U"


@pytest.mark.parametrize("option", KEPT_BY_OPTION)
def test_what_an_option_keeps_is_allowed_by_its_column(option):
    in_table = {keyword for keyword in KEPT_BY_OPTION[option] if action_of(keyword) is not None}
    assert in_table == OPTION_COLUMNS.get(option, {}).keys()


def test_what_names_a_patient_is_the_tables():
    assert all(action_of(keyword) for keyword in IDENTIFYING)
    assert not IDENTIFYING & (ALWAYS_KEPT | frozenset().union(*KEPT_BY_OPTION.values()))


def test_no_list_has_free_text():
    """Of a text's kinds, only known words, known names and what is moved or counted."""
    read_as = WORDS.keys() | NAMES.keys() | REPLACED_UIDS | {"PatientOrientation"}
    read_as |= REFERENCE_WORDS.keys() | REFERENCE_UIDS
    kinds = {"DA", "TM", "DT", "AS", "DS", "IS", "US", "UL", "SL", "FD", "FL", "SQ", "US or SS"}
    kinds |= {"AT"}  # an attribute's tag
    listed = ALWAYS_KEPT | KEPT_OF_REFERENCES | frozenset().union(*KEPT_BY_OPTION.values())
    for keyword in listed - read_as:
        kind = dictionary_VR(keyword)
        known = ("SOPClassUID", "ReferencedSOPClassUID", "LUTData")
        assert kind in kinds or keyword in known, keyword


def test_the_page_shows_the_lists():
    page = PAGE.read_text()
    for name, lines in tables().items():
        shown = page.split(f"<!-- {name} -->\n")[1].split("\n<!-- end -->")[0]
        assert shown == "\n".join(lines), f"docs/deidentification.md, {name}, is to be:\n" + (
            "\n".join(lines)
        )


def tables() -> dict[str, list[str]]:
    """The page's tables by their marks."""
    found = {"always": _table(ALWAYS_KEPT)}
    for option, keywords in KEPT_BY_OPTION.items():
        found[option] = _table(keywords)
    found["kept"] = _table(IDENTIFYING)
    found["references"] = _table(KEPT_OF_REFERENCES)
    found[Option.SAFE_PRIVATE] = [
        "| vendor's name for the group | element | what it is |",
        "|---|---|---|",
        *(
            f"| {safe.creator} | ({safe.group:04X},xx{safe.offset:02X}) | {safe.meaning} |"
            for safe in SAFE_PRIVATE
        ),
    ]
    return found


def _table(keywords: frozenset[str]) -> list[str]:
    rows = sorted((tag_for_keyword(keyword) or 0, keyword) for keyword in keywords)
    return [
        "| attribute | tag | kept as |",
        "|---|---|---|",
        *(
            f"| {dictionary_description(tag)} | ({tag >> 16:04X},{tag & 0xFFFF:04X}) "
            f"| {_kept_as(keyword)} |"
            for tag, keyword in rows
        ),
    ]


def _kept_as(keyword: str) -> str:
    if keyword in REPLACED_UIDS | REFERENCE_UIDS:
        return "replaced by a number of ours"
    if keyword in IDENTIFYING:
        return "it is"
    if keyword in REFERENCE_CODES:
        return "codes of known schemes"
    if keyword in WORDS or keyword in REFERENCE_WORDS:
        return "one of a few known words"
    if keyword in NAMES:
        return "one of a few known names"
    if keyword == "PatientOrientation":
        return "letters of directions"
    if keyword in ("SOPClassUID", "ReferencedSOPClassUID"):
        return "a kind of object that the standard names"
    return {
        "AT": "an attribute that the standard names",
        "SQ": "a group: only what is listed here is kept of it",
        "DA": "a day, moved",
        "TM": "a time of day",
        "DT": "a day, moved, and a time of day; no time zone",
        "AS": "an age; above 89 years 90",
    }.get(dictionary_VR(keyword), "numbers")
