"""Values that want to be paths, markup, control characters, or numbers that no machine has.

Each goes through the real ingest in a header that is right otherwise, beside good files. Whatever a
header says, its file has a fate with a name, the good ones go in, nothing is written outside the
store, and no answer repeats it. test_mutations.py damages files at random; here the values are
chosen.
"""

from __future__ import annotations

import logging
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.tag import Tag

from delineate.annotation.transitions import State
from delineate.projects.models import Project
from delineate.studies.models import Instance, Series, Study, Upload
from tests.delineate.factories import browser_of, lead_of, new_project, new_task
from tests.delineate.studies.files import image, send_and_ingest, written, zipped

pytestmark = pytest.mark.django_db

TEXTS: Mapping[str, bytes] = {
    "path": b"../../../../etc/passwd",
    "absolute": b"/etc/passwd",
    "windows": b"..\\..\\windows\\system32",
    "escaped": b"%2e%2e%2fetc%2fpasswd",
    "nul": b"1.2\x00.3",
    "only nul": b"\x00\x00",
    "long": b"9" * 10_000,
    "empty": b"",
    "script": b"<script>alert(1)</script>",
    "attribute": b"\" onload='alert(1)' x=\"",
    "template": b"{{7*7}}${7*7}%s%n",
    "sql": b"'; DROP TABLE studies_study; --",
    "escape": b"\x1b[31mred\x1b$)C",
    "controls": bytes(range(1, 32)) + b"\x7f",
    "surrogate": b"\xed\xa0\x80\xed\xb0\x80",
    "no utf-8": b"\xff\xfe\xc3",
    "override": "\u202egnp.\u200b".encode(),
}
NUMBERS: Mapping[str, bytes] = {
    "nan": b"NaN",
    "infinite": b"-inf",
    "overflow": b"1e400",
    "huge": b"1e308",
    "tiny": b"1e-320",
    "negative": b"-8",
    "zero": b"0",
    "many digits": b"9" * 4_000,
    "words": b"twelve",
    "hex": b"0x10",
    "nothing": b"",
}
# What an answer must not hold, wherever it came from.
TRACES = re.compile(
    r"passwd|system32|<script|onload|\{\{7|DROP TABLE|[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]"
    r"|\\u00[01]|\\ud[89a-f]|\u202e|\\u202e|9{100}|NaN|Infinity"
)
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
# One attribute of every VR in text, those that are kept or looked at among them.
WORDS = (
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientAge"),
    *("Modality", "ImageType", "BodyPartExamined", "StudyTime"),
    *("StudyDescription", "AccessionNumber", "AcquisitionDateTime", "PatientComments"),
    *("InstitutionAddress", "StationAETitle", "RetrieveURL", "LongCodeValue", "TextValue"),
    *("PatientWeight", "StageNumber"),
)
PLACES_AND_VALUES = (
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelSpacing"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SeriesNumber", "InstanceNumber"),
    *("EchoTime", "SliceThickness", "KVP", "TemporalPositionIdentifier", "EchoNumbers"),
)
DESCRIPTION = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"),
    *("PixelRepresentation", "PlanarConfiguration"),
)
LONG = {"OB", "OW", "SQ", "UC", "UN", "UR", "UT"}  # four bytes of length (PS3.5 7.1.2)


class Case(NamedTuple):
    """An attribute with the bytes of its value, as ``vr`` says they are."""

    keyword: str
    name: str
    value: bytes
    vr: str

    def __str__(self) -> str:
        return f"{self.keyword} {self.name} as {self.vr}"


def texts(keywords: Iterable[str]) -> list[Case]:
    """Each attribute with every text."""
    return [
        Case(keyword, name, value, dictionary_VR(Tag(keyword)))
        for keyword in keywords
        for name, value in TEXTS.items()
    ]


def numbers(keywords: Iterable[str], *, vr: str | None = None) -> list[Case]:
    """Each attribute with every number, as often as it has values."""
    cases = []
    for keyword in keywords:
        tag = Tag(keyword)
        multiplicity = dictionary_VM(tag)
        times = int(multiplicity) if multiplicity.isdigit() else 1
        for name, value in NUMBERS.items():
            cases.append(Case(keyword, name, b"\\".join([value] * times), vr or dictionary_VR(tag)))
    return cases


def words_of_16_bits(keywords: Iterable[str]) -> list[Case]:
    """Each attribute with numbers of two bytes that no image has."""
    return [
        Case(keyword, name, value, vr)
        for keyword in keywords
        for name, value, vr in (
            ("most", b"\xff\xff", "US"),
            ("none", b"\0\0", "US"),
            ("minus one", b"\xff\xff", "SS"),
            ("two of them", b"\1\0\2\0", "US"),
            ("half a one", b"\1", "US"),
        )
    ]


def file_of(cases: Sequence[Case], *, number: int) -> bytes:
    """An image of a study and a patient of its own, with the cases' values in its header."""
    uid = f"1.2.826.{number}"
    good = image(study=uid, series=f"{uid}.1", sop=f"{uid}.1.1", patient=f"P{number}")
    good.SpecificCharacterSet = "ISO_IR 192"
    return reduce(with_element, cases, written(good))


def with_element(file: bytes, case: Case) -> bytes:
    """A flat explicit little-endian file with an element replaced, or put where it belongs.

    By bytes: pydicom writes no such values.
    """
    tag = Tag(case.keyword)
    value = case.value + (b"\0" if case.vr == "UI" else b" ") * (len(case.value) % 2)
    length = struct.pack("<HI", 0, len(value)) if case.vr in LONG else struct.pack("<H", len(value))
    element = struct.pack("<HH", tag.group, tag.element) + case.vr.encode() + length + value
    at = 132
    while at < len(file):
        here = Tag(*struct.unpack_from("<HH", file, at))
        head, form = (12, "<8xI") if file[at + 4 : at + 6].decode() in LONG else (8, "<6xH")
        end = at + head + struct.unpack_from(form, file, at)[0]
        if here >= tag:
            return file[:at] + element + file[end if here == tag else at :]
        at = end
    return file + element


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


@pytest.fixture
def outcome_of(project, lead, caplog):
    """A function: send a file of each case, or of several at once, in one upload with good files,
    check what holds for all of them, and give for each attribute the codes that its files met.
    """

    def outcome(cases: Sequence[Case | Sequence[Case]]) -> dict[str, set[str]]:
        groups = [[case] if isinstance(case, Case) else case for case in cases]
        caplog.set_level(logging.WARNING)
        before = around_the_store()
        good = [image(study="9.9", series="9.9.1", z=float(z)) for z in range(2)]
        files = [file_of(group, number=number) for number, group in enumerate(groups)]
        upload = send_and_ingest(lead, project, zipped([*files, *good]))
        assert upload.state == "done"
        assert [line["fate"] for line in upload.report[-2:]] == ["stored", "stored"]
        assert len(upload.report) == len(cases) + 2
        assert around_the_store() == before
        assert odd_keys() == []
        assert [(url, found) for url, text in answers(lead, upload) for found in traces(text)] == []
        # pydicom's own warnings, which repeat values, go nowhere outside of tests.
        ours = [record for record in caplog.records if not record.name.startswith("pydicom")]
        assert [record.getMessage() for record in ours] == []
        codes = defaultdict(set)
        for group, line in zip(groups, upload.report[:-2], strict=True):
            assert line["fate"] in ("stored", "refused"), str(group)
            assert bool(line["code"]) == bool(line["message"])
            assert line["fate"] != "refused" or line["code"]
            for case in group:
                codes[case.keyword].add(line["code"] or "stored")
        return dict(codes)

    return outcome


def traces(text: str) -> list[str]:
    """What of the values above is in ``text``."""
    return TRACES.findall(text)


def around_the_store() -> set[str]:
    """What lies beside the store and where we are."""
    folders = (store().parent, Path.cwd())
    return {str(path) for folder in folders for path in folder.iterdir()}


def odd_keys() -> list[str]:
    """Objects that do not lie where ids alone can lead."""
    ours = re.compile(r"(studies|uploads)(/[0-9a-f-]{36}){1,3}(/\d+)?(\.\w+)?")
    below = [path.relative_to(store()).as_posix() for path in store().rglob("*") if path.is_file()]
    return [key for key in below if re.match("studies|uploads", key) and not ours.fullmatch(key)]


def store() -> Path:
    """The folder of the object store."""
    return Path(urlsplit(settings.ENVIRONMENT.storage_url).path)


def answers(lead: Client, upload: Upload) -> list[tuple[str, str]]:
    """Everything that the API says of an upload and of what was made of it."""
    here = f"/api/projects/{upload.project_id}"
    urls = [f"/api/uploads/{upload.id}"]
    urls += [f"{here}/{part}" for part in ("uploads", "studies", "events", "progress", "tasks")]
    for series in Series.objects.select_related("study"):
        of_series = f"studies/{series.study.study_uid}/series/{series.series_uid}"
        urls.append(f"/dicomweb/{upload.project_id}/{of_series}/metadata")
        urls.append(f"/api/tasks/{new_task(series, state=State.OPEN).id}")
    told = []
    for url in urls:
        response = lead.get(url)
        assert response.status_code == 200, url
        assert "html" not in response["Content-Type"]
        told.append((url, response.getvalue().decode()))
    return told


def test_uids_may_be_anything_and_are_replaced(outcome_of):
    assert outcome_of(texts(IDENTIFIERS)) == {keyword: {"stored"} for keyword in IDENTIFIERS}
    uids = {
        *Study.objects.values_list("study_uid", flat=True),
        *Series.objects.values_list("series_uid", flat=True),
        *Series.objects.values_list("frame_of_reference_uid", flat=True),
        *Instance.objects.values_list("sop_instance_uid", flat=True),
    }
    assert all(re.fullmatch(r"2\.25\.\d{1,39}", uid) for uid in uids if uid)


def test_kinds_that_nobody_knows_are_refused_without_repeating_them(outcome_of):
    # Without a kind it is taken for a secondary capture, which is looked at first.
    kinds = {"SOPClassUID": {"unsupported_kind", "in_quarantine"}}
    assert outcome_of(texts(["SOPClassUID"])) == kinds
    assert set(Instance.objects.values_list("sop_class_uid", flat=True)) == {
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.7",
    }


def test_words_are_dropped_or_known(outcome_of):
    by_text = list(zip(*(texts([keyword]) for keyword in WORDS), strict=True))
    assert outcome_of(by_text) == {keyword: {"stored"} for keyword in WORDS}


def test_a_character_set_that_is_none_does_not_keep_an_image_out(outcome_of):
    codes = outcome_of(texts(["SpecificCharacterSet"]))
    assert codes == {"SpecificCharacterSet": {"stored", "unreadable"}}  # unreadable: with a NUL


def test_colours_that_nobody_knows_are_refused(outcome_of):
    keyword = "PhotometricInterpretation"
    assert outcome_of(texts([keyword])) == {keyword: {"unsupported_photometric"}}


def test_numbers_of_places_and_values_are_numbers_or_dropped(outcome_of):
    codes = outcome_of(numbers(PLACES_AND_VALUES))
    assert {keyword: found for keyword, found in codes.items() if found != {"stored"}} == {}


def test_numbers_that_describe_pixels_are_right_or_refused(outcome_of):
    cases = [
        *numbers(DESCRIPTION, vr="IS"),
        *words_of_16_bits(DESCRIPTION),
        *numbers(["NumberOfFrames"]),
    ]
    assert outcome_of(cases) == {
        "Rows": {"unreadable", "unsupported_size", "decode_failed"},
        "Columns": {"unreadable", "unsupported_size", "decode_failed"},
        "BitsAllocated": {"unreadable", "unsupported_bits"},
        "BitsStored": {"decode_failed"},
        "HighBit": {"stored"},  # follows from the others
        "SamplesPerPixel": {"unreadable", "unsupported_size", "decode_failed"},
        "PixelRepresentation": {"decode_failed", "stored"},
        "PlanarConfiguration": {"decode_failed", "stored"},  # says nothing of grey images
        "NumberOfFrames": {"unreadable", "too_many_frames", "decode_failed", "stored"},
    }


def test_the_search_for_traces_finds_them():
    """The checks above are worth something."""
    for name in ("path", "script", "attribute", "template", "sql", "escape", "controls", "long"):
        assert traces(TEXTS[name].decode("latin-1")), name
    for text in ('{"a": NaN}', r'"\ud800"', "\x00"):
        assert traces(text)
