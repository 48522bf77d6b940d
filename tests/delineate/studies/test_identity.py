"""A name planted wherever a file can carry one is nowhere afterwards."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence

from delineate.projects.models import Project
from delineate.studies.models import Instance, Series
from tests.delineate.factories import browser_of, lead_of, new_model, new_project
from tests.delineate.studies.files import fates, image, send_and_ingest, zipped

pytestmark = pytest.mark.django_db

NAME = "ZANZIBARD"
STUDY_UID = "1.2.826.7777"
TEXT = {"PN", "LO", "SH", "CS", "LT", "ST", "UT", "UC", "AE"}
# Without these in order, there is no image to read.
NEEDED = {"SpecificCharacterSet", "PhotometricInterpretation"}


@pytest.fixture
def project() -> Project:
    """A project of one lead, with a model: encodings are owed too."""
    new_model()
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


@pytest.fixture
def everywhere(project, lead, caplog) -> list[tuple[str, str]]:
    """All that is kept or said after an upload full of a name: (where, text in lower case)."""
    caplog.set_level(logging.DEBUG)
    upload = send_and_ingest(lead, project, _upload(), name=f"{NAME}.zip")
    assert fates(upload) == [
        ("stored", ""),
        ("refused", "not_dicom"),
        ("refused", "unsupported_kind"),
        ("refused", "decode_failed"),
        ("refused", "not_dicom"),
        ("refused", "unsafe_path"),
        ("skipped", "litter"),
        ("refused", "mapping_malformed"),
    ]
    series, instance = Series.objects.get(), Instance.objects.get()
    of_series = (
        f"/dicomweb/{project.id}/studies/{series.study.study_uid}/series/{series.series_uid}"
    )
    found = [*_rows(), *_objects()]
    for url in (
        f"/api/projects/{project.id}/uploads",
        f"/api/uploads/{upload.id}",
        f"/api/projects/{project.id}/studies",
        f"{of_series}/metadata",
        f"{of_series}/instances/{instance.sop_instance_uid}/frames/1",
    ):
        response = lead.get(url)
        assert response.status_code == 200, url
        found.append((url, response.content.decode("latin-1")))
    found += [("log", record.getMessage()) for record in caplog.records] + [("log", caplog.text)]
    return [(where, text.lower()) for where, text in found]


def test_the_name_is_nowhere(everywhere):
    assert [where for where, text in everywhere if NAME.lower() in text] == []


def test_the_original_uids_are_nowhere(everywhere):
    assert [where for where, text in everywhere if STUDY_UID in text] == []


def test_the_search_finds_what_is_there(everywhere, project):
    """The two tests above are worth something: they look where the study's data are."""
    series = Series.objects.get()
    wheres = {where.split("/")[0] for where, text in everywhere if series.series_uid in text}
    assert {"table studies_series", "table studies_instance"} <= wheres
    assert any(where.startswith("object studies/") for where, _ in everywhere)


def _upload() -> bytes:
    unreadable = _full_of_names(series=f"{STUDY_UID}.2")
    unreadable.PixelData = unreadable.PixelData[:20]
    return zipped(
        {
            f"{NAME}/{NAME}.dcm": _written(_full_of_names(series=f"{STUDY_UID}.1")),
            f"{NAME}/notes.txt": f"{NAME} was here".encode(),
            f"{NAME}/report.dcm": _written(_full_of_names(kind=f"1.2.3.{ord(NAME[0])}")),
            f"{NAME}/broken.dcm": _written(unreadable),
            f"{NAME}/{NAME}.zip": zipped({f"{NAME}.txt": NAME.encode()}, comment=NAME.encode()),
            f"../{NAME}.dcm": _written(_full_of_names()),
            f"__MACOSX/{NAME}": b"",
            "subjects.csv": f"file,subject\n*/{NAME}.dcm,{NAME}\n{NAME},\n".encode(),
        },
        comment=NAME.encode(),
    )


def _full_of_names(*, series: str = f"{STUDY_UID}.9", kind: str | None = None) -> Dataset:
    dataset = image(study=STUDY_UID, series=series, sop=f"{series}.1")
    if kind is not None:
        dataset.SOPClassUID = kind
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in TEXT and tag >= 0x00080000 and keyword not in NEEDED:
            dataset.add_new(tag, vr, NAME)
    for keyword in ("KVP", "EchoTime", "SliceLocation", "DimensionOrganizationUID", "StackID"):
        # A number in name only.
        dataset.add_new(keyword, "LO", NAME)
        assert keyword == "StackID" or dictionary_VR(keyword) not in TEXT
    dataset.private_block(0x0011, NAME, create=True).add_new(1, "LO", NAME)
    dataset.OtherPatientIDsSequence = Sequence([_item()])
    measures = _item()
    measures.PixelSpacing = [1, 1]
    group = _item()
    group.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([group])
    dataset.add_new((0x6000, 0x0022), "LO", NAME)
    dataset.file_meta.ImplementationVersionName = NAME
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    dataset.preamble = NAME.encode().ljust(128, b"\0")
    return dataset


def _item() -> Dataset:
    item = Dataset()
    item.PatientName, item.PatientID, item.Modality, item.StackID = NAME, NAME, NAME, NAME
    item.add_new((0x0011, 0x0010), "LO", NAME)
    return item


def _written(dataset: Dataset) -> bytes:
    """As a file, its preamble kept."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    assert buffer.getvalue().startswith(NAME.encode())
    return buffer.getvalue()


def _rows() -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            quoted = connection.ops.quote_name(table)
            cursor.execute(f"SELECT t::text FROM {quoted} t")
            rows += [(f"table {table}", text) for (text,) in cursor.fetchall()]
    return rows


def _objects() -> list[tuple[str, str]]:
    root = Path(settings.ENVIRONMENT.storage_url.removeprefix("file://"))
    return [
        (f"object {path.relative_to(root)}", f"{path}{path.read_bytes().decode('latin-1')}")
        for path in root.rglob("*")
        if path.is_file()
    ]
