"""A name planted wherever a file can carry one is nowhere afterwards."""

from __future__ import annotations

import base64
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.sequence import Sequence

from delineate.annotation.models import Task
from delineate.annotation.transitions import State
from delineate.exports.build import build
from delineate.exports.models import Export, Format
from delineate.projects.models import Project
from delineate.projects.privacy import Policy
from delineate.studies import deidentify
from delineate.studies.models import Instance, Reference, Series, Study
from tests.delineate.factories import (
    CT,
    accept_mask,
    browser_of,
    label_of,
    lead_of,
    new_model,
    new_project,
)
from tests.delineate.studies.files import fates, send_and_ingest, zipped
from tests.delineate.studies.identities import (
    BIRTHDAY,
    NAME,
    PICTURES_AND_VOLUMES,
    UID,
    VRS,
    full_of_names,
    plant,
    planted,
    reference_full_of_names,
    written,
)
from tests.delineate.studies.identities import zipped as zipped_with_names
from tests.delineate.studies.reference_files import dose, images, segmentation, structures

PICTURES = ("png", "jpg", "tif")
EVERYTHING = Policy(patient_characteristics=True, device=True)


@pytest.fixture
def project(db) -> Project:
    """A project of one lead, with a model: encodings are owed too."""
    new_model()
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that reaches the log, at its most talkative."""
    written = io.StringIO()
    handler, root = logging.StreamHandler(written), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def everywhere(project, lead, log) -> list[tuple[str, str]]:
    """All that is kept or said after an upload full of names: (where, text in lower case)."""
    upload = send_and_ingest(lead, project, _upload(), name=f"{NAME}.zip")
    assert fates(upload) == [
        ("stored", ""),
        ("refused", "not_dicom"),
        ("refused", "unsupported_kind"),
        ("refused", "unsupported_kind"),
        ("refused", "decode_failed"),
        ("refused", "not_dicom"),
        *[("stored", "in_quarantine" if kind in PICTURES else "") for kind in PICTURES_AND_VOLUMES],
        ("refused", "unsafe_path"),
        ("skipped", "litter"),
        *[("stored", "kept_as_reference")] * 3,
        ("refused", "mapping_malformed"),
    ]
    found = [*_exports(project, lead), *_rows(), *_objects()]
    for url in _addresses(project, upload_id=str(upload.id)):
        response = lead.get(url)
        assert response.status_code == 200, url
        found.append((url, response.getvalue().decode("latin-1")))
    found.append(("log", log.getvalue()))
    return [(where, text.lower()) for where, text in found]


def test_what_was_planted_is_nowhere(everywhere):
    for secret in (NAME, BIRTHDAY, UID):
        as_binary_in_json = base64.b64encode(planted(secret)).decode()[:10].lower()
        for form in (secret.lower(), as_binary_in_json):
            assert [where for where, text in everywhere if form in text] == [], secret
    # Which is worth something: the study's own data are found there.
    series = Series.objects.get(series_uid=Instance.objects.get(sop_class_uid=CT).series.series_uid)
    wheres = {where.split("/")[0] for where, text in everywhere if series.series_uid in text}
    assert {"table studies_series", "table studies_instance", "dicom_seg"} <= wheres
    assert any(where.startswith("object studies/") for where, _ in everywhere)
    assert Reference.objects.count() == 3
    assert len(next(text for where, text in everywhere if where == "log")) > 1000


@given(data=st.data())
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_text_anywhere_in_a_header_survives(data):
    """Any attribute as any value representation at any depth, with all options on."""
    tags = sorted(tag for tag, (vr, *_) in DicomDictionary.items() if vr != "SQ")
    draw = data.draw
    dataset = outer = Dataset()
    for _ in range(draw(st.integers(0, 3))):
        inner = Dataset()
        keyword = draw(st.sampled_from(_KEPT_SEQUENCES))
        setattr(dataset, keyword, Sequence([inner]))
        dataset = inner
    for _ in range(draw(st.integers(1, 8))):
        before = draw(st.binary(max_size=4))
        value = (before + planted(NAME))[:16].ljust(16)
        plant(dataset, draw(st.sampled_from(tags)), draw(st.sampled_from(VRS)), value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ill-formed values are what this is about
        kept = deidentify.clean(
            outer,
            key=b"k" * 32,
            patient="S-1",
            policy=EVERYTHING,
            is_reference=draw(st.booleans()),
        )
    text = json.dumps(kept.to_json_dict()).lower()
    assert NAME[:8].lower() not in text
    assert base64.b64encode(NAME.encode()).decode()[:8].lower() not in text


_KEPT_SEQUENCES = (
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "VOILUTSequence"),
    *("FrameContentSequence", "MREchoSequence", "PixelMeasuresSequence", "MRDiffusionSequence"),
    *("SegmentSequence", "StructureSetROISequence", "ROIContourSequence", "ContourSequence"),
    *("SegmentedPropertyTypeCodeSequence", "AnatomicRegionSequence", "ReferencedSeriesSequence"),
)


def _upload() -> bytes:
    unreadable = full_of_names(series=f"{UID}.2")
    unreadable.PixelData = unreadable.PixelData[:20]
    encapsulated = full_of_names(kind="1.2.840.10008.5.1.4.1.1.104.1")
    return zipped_with_names(
        {
            f"{NAME}/{NAME}.dcm": written(full_of_names(series=f"{UID}.1", everywhere=True)),
            f"{NAME}/notes.txt": f"{NAME} was here".encode(),
            f"{NAME}/report.dcm": written(full_of_names(kind=f"1.2.3.{ord(NAME[0])}")),
            f"{NAME}/encapsulated.dcm": written(encapsulated),
            f"{NAME}/broken.dcm": written(unreadable),
            f"{NAME}/{NAME}.zip": zipped({f"{NAME}.txt": NAME.encode()}, comment=NAME.encode()),
            **{f"{NAME}/{NAME}.{kind}": make() for kind, make in PICTURES_AND_VOLUMES.items()},
            f"../{NAME}.dcm": written(full_of_names()),
            f"__MACOSX/{NAME}": b"",
            **{f"{NAME}/{n}.dcm": written(made) for n, made in enumerate(_references())},
            "subjects.csv": f"file,subject\n*/{NAME}.dcm,{NAME}\n{NAME},\n".encode(),
        }
    )


def _references() -> list[Dataset]:
    source = images()
    made = [segmentation(source, label=NAME), dose(), structures(source, name=NAME)]
    return [reference_full_of_names(each) for each in made]


def _addresses(project: Project, *, upload_id: str) -> list[str]:
    found = [
        f"/api/projects/{project.id}",
        f"/api/projects/{project.id}/events",
        f"/api/projects/{project.id}/uploads",
        f"/api/projects/{project.id}/studies",
        f"/api/projects/{project.id}/tasks",
        f"/api/projects/{project.id}/exports",
        f"/api/uploads/{upload_id}",
    ]
    for instance in Instance.objects.select_related("series__study"):
        series = instance.series
        root = f"/dicomweb/{project.id}/studies/{series.study.study_uid}/series/{series.series_uid}"
        frame = f"{root}/instances/{instance.sop_instance_uid}/frames/1"
        found += [f"{root}/metadata", frame]
    for study in Study.objects.all():
        root = f"/dicomweb/{project.id}/studies/{study.study_uid}"
        found += [f"{root}/metadata", f"{root}/instances?includefield=all"]
        for reference in study.references.all():
            found.append(
                f"{root}/series/{reference.series_uid}/instances/{reference.sop_instance_uid}"
            )
    return found


def _exports(project: Project, lead: Client) -> list[tuple[str, str]]:
    """Each format of all series with a mask: its files' names and bytes, unpacked."""
    for series in Series.objects.all():
        mask = np.zeros((series.rows, series.columns), dtype=np.bool_)
        mask[:2, :2] = True
        task = Task.objects.get_or_create(series=series, defaults={"state": State.ACCEPTED})[0]
        accept_mask(task, mask, index=0, label=label_of(project, "liver"))
    found = []
    for format in Format:
        export = Export.objects.create(
            project=project, by=lead_of(project), format=format, reviewed_only=False
        )
        build(export.id)
        answer = lead.get(f"/api/exports/{export.id}/file")
        assert answer.status_code == 200
        with zipfile.ZipFile(io.BytesIO(answer.getvalue())) as archive:
            for name in archive.namelist():
                content = archive.read(name)
                found.append((str(format), name + content.decode("latin-1")))
    return found


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
