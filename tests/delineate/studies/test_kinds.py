"""The table of SOP classes, held to pydicom's dictionary and to the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from delineate.studies import kinds, pixels
from delineate.studies.archive import Refused
from delineate.studies.kinds import KINDS, Fate, kind_of
from tests.delineate.studies.files import image

PAGE = Path(__file__).parents[3] / "docs/formats.md"
STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = [
    suffix if suffix.startswith("1.2.840.") else STORAGE + suffix
    for _, suffixes in KINDS
    for suffix in suffixes.split()
]


def test_every_storage_class_of_the_standard_is_in_the_table_and_once():
    assert len(CLASSES) == len(set(CLASSES))
    of_the_standard = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and uid.startswith("1.2.840.10008.5.1.4.") and "Storage" in name
    }
    # Storing itself, and what is no object: commitment.
    assert {uid for uid in of_the_standard - set(CLASSES) if "Commitment" not in uid} == set()


@pytest.mark.parametrize(
    ("suffix", "fate"),
    [
        ("2", Fate.IMAGE),
        ("6.2", Fate.IMAGE),
        ("66.4", Fate.REFERENCE),
        ("66.7", Fate.REFERENCE),
        ("481.3", Fate.REFERENCE),
        ("77.1.6", Fate.REFERENCE),
        ("88.11", Fate.REFUSED),
        ("481.5", Fate.REFUSED),
    ],
)
def test_the_table_says_what_becomes_of_an_object(suffix, fate):
    assert kind_of(STORAGE + suffix).fate is fate


@pytest.mark.parametrize(
    ("kind", "uid"),
    [
        (kind, uid)
        for kind, suffixes in KINDS
        if kind.fate is Fate.REFUSED
        for uid in [STORAGE + suffixes.split()[0]]
        if not suffixes.startswith("1.2.")
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_what_is_refused_is_refused_by_name(kind, uid):
    with pytest.raises(Refused, match=kind.name) as refused:
        pixels.check_kind(image(SOPClassUID=uid))
    assert refused.value.code in ("unsupported_kind", "video")


@pytest.mark.parametrize(
    "suffix", ["100", "101", "102", "102.1", "103", "104", "105", "106", "107", "108"]
)
def test_videos_of_any_class_are_refused_as_such(suffix):
    film = image()
    film.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.4.{suffix}")
    with pytest.raises(Refused, match="a video") as refused:
        pixels.check_kind(film)
    assert refused.value.code == "video"
    assert kind_of(f"{STORAGE}77.1.1.1") is kinds.VIDEO


def test_what_the_standard_does_not_name_is_not_repeated():
    with pytest.raises(Refused) as refused:
        pixels.check_kind(image(SOPClassUID="1.2.3.4567"))
    assert "4567" not in refused.value.message
    assert kind_of("1.2.840.10008.1.1") is kinds.UNLISTED


def test_the_page_shows_the_table():
    rows = [
        f"| {kind.name} | {suffixes.replace(' ', ', ')} | {_fate_in_words(kind)} |"
        for kind, suffixes in KINDS
    ]
    table = "\n".join(["| objects | SOP classes | are |", "|---|---|---|", *rows])
    shown = PAGE.read_text().split("<!-- kinds -->\n")[1].split("<!-- end -->")[0].rstrip("\n")
    assert shown == table, f"docs/formats.md, kinds, is to be:\n{table}"


def _fate_in_words(kind: kinds.Kind) -> str:
    return f"refused as `{kind.code}`" if kind.fate is Fate.REFUSED else str(kind.fate)
