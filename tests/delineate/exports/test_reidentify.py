"""Identities that are sealed at ingest come back with the lead's file, and with nothing else."""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import logging
from typing import Any
from zipfile import ZipFile

import numpy as np
import pydicom
import pytest
from django.db import connection

from delineate.audit.models import Event
from delineate.errors import Conflict, Invalid, NotAllowed, NotFound
from delineate.exports import reidentify_command
from delineate.exports.models import Export
from delineate.projects.models import Role
from delineate.studies.models import SealedOriginal, Series, Study
from tests.delineate import factories
from tests.delineate.studies.files import image, send_and_ingest, written

pytestmark = pytest.mark.django_db

JSON = "application/json"
STUDY, SERIES, SOP = "1.2.826.7777", "1.2.826.7777.1", "1.2.826.7777.1.1"
PATIENT: dict[str, Any] = {
    "PatientName": "Zanzibard^Jane",
    "PatientBirthDate": "19330307",
    "IssuerOfPatientID": "HOSPITAL",
}


@pytest.fixture
def project():
    return factories.new_project()


@pytest.fixture
def lead(project):
    return factories.browser_of(factories.lead_of(project))


@pytest.fixture
def key(project, lead):
    """The file as the lead's browser saves it."""
    answer = lead.post(f"/api/projects/{project.id}/escrow")
    assert answer.status_code == 200
    assert f"delineate-escrow-{project.id}.json" in answer["Content-Disposition"]
    return answer.content.decode()


@pytest.fixture
def exported(project, lead, key, export_of):
    """A DICOM export of a patient's study, and its bytes."""
    file = image(study=STUDY, series=SERIES, sop=SOP, patient="MRN-77", **PATIENT)
    send_and_ingest(lead, project, written(file))
    series = Series.objects.get()
    mask = np.ones((series.rows, series.columns), dtype=np.bool_)
    label = factories.label_of(project, "liver")
    factories.accept_mask(factories.new_task(series), mask, index=0, label=label)
    return export_of(project, "dicom_seg").export


def ask(browser, export, key):
    return browser.post(
        f"/api/exports/{export.id}/reidentified", {"escrow": key}, content_type=JSON
    )


def code_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


def opened(data: bytes) -> dict[str, bytes]:
    with ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_identities(files: dict[str, bytes]) -> None:
    study = Study.objects.get()
    (line,) = csv.DictReader(io.StringIO(files["identities.csv"].decode()))
    assert line.pop("date_shift_days").startswith("-")
    assert line == {
        "pseudonym": study.subject.pseudonym,
        "patient_id": "MRN-77",
        "issuer": "HOSPITAL",
        "patient_name": "Zanzibard^Jane",
        "birth_date": "19330307",
        "study_uid": study.study_uid,
        "original_study_uid": STUDY,
    }
    (name,) = [name for name in files if name.endswith(".dcm")]
    segmentation = pydicom.dcmread(io.BytesIO(files[name]))
    assert (segmentation.PatientID, segmentation.PatientName) == ("MRN-77", "Zanzibard^Jane")
    assert segmentation.PatientBirthDate == "19330307"
    assert segmentation.StudyInstanceUID == STUDY
    assert segmentation.FrameOfReferenceUID == f"{STUDY}.99"
    (frame,) = segmentation.PerFrameFunctionalGroupsSequence
    (source,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert source.ReferencedSOPInstanceUID == SOP
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
    assert segmentation.pixel_array.all()
    members = {each["path"] for each in json.loads(files["manifest.json"])["members"]}
    assert members | {"manifest.json"} == files.keys()


def test_the_key_gives_the_identities_back(exported, lead, key):
    answer = ask(lead, exported, key)
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "private, no-store"
    check_identities(opened(answer.getvalue()))
    event = Event.objects.get(action="export_reidentified")
    assert (event.subject, event.data["studies"]) == (f"export {exported.id}", 1)


def test_without_it_they_are_nowhere(exported, lead, key, caplog):
    caplog.set_level(logging.DEBUG)
    private = json.loads(key)["private_key"]
    ask(lead, exported, key)
    secrets = ["zanzibard", "mrn-77", "19330307", STUDY]
    secrets += [each.encode().hex() for each in secrets]
    secrets += [private.lower(), base64.b64decode(private).hex()]
    text = caplog.text.lower()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT t::text FROM {connection.ops.quote_name(table)} t")
            text += "".join(row for (row,) in cursor.fetchall()).lower()
    assert [secret for secret in secrets if secret in text] == []
    assert bytes(SealedOriginal.objects.get().sealed).hex() in text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"private_key": base64.b64encode(b"x" * 32).decode()}, "escrow_wrong_key"),
        ({"project": "00000000-0000-0000-0000-000000000000"}, "escrow_wrong_key"),
        ({"private_key": "short"}, "escrow_unreadable"),
        ({"private_key": "c2hvcnQ="}, "escrow_unreadable"),
        ({"version": 2}, "escrow_unreadable"),
        ({"more": 1}, "escrow_unreadable"),
    ],
)
def test_another_key_is_refused_and_not_repeated(exported, lead, key, change, code):
    answer = ask(lead, exported, json.dumps(json.loads(key) | change))
    assert code_of(answer) == (422, code)
    assert json.loads(key)["private_key"] not in answer.content.decode()
    assert not Event.objects.filter(action="export_reidentified").exists()


@pytest.mark.parametrize("text", ["key", "k" * 5000])
def test_another_file_is_no_key(exported, lead, text):
    assert code_of(ask(lead, exported, text)) == (422, "escrow_unreadable")


def test_an_export_of_a_project_without_escrow_has_no_way_back(exported, lead, key):
    exported.project.escrow_public_key = None
    exported.project.save()
    assert code_of(ask(lead, exported, key)) == (409, "no_escrow")


def test_an_export_that_is_not_finished_has_none_either(project, lead, key):
    export = Export.objects.create(project=project, by=factories.lead_of(project), format="png")
    assert code_of(ask(lead, export, key)) == (409, "not_ready")


@pytest.mark.parametrize("role", [Role.REVIEWER, Role.ANNOTATOR])
def test_only_leads_may(exported, key, role):
    browser = factories.browser_of(factories.new_member(exported.project, role))
    assert code_of(ask(browser, exported, key)) == (403, "not_allowed")


def test_what_is_deleted_with_a_study_is_its_sealed_original(exported):
    Study.objects.get().delete()
    assert not SealedOriginal.objects.exists()


# Beginning.


def test_the_key_is_given_once(project, lead, key):
    assert code_of(lead.post(f"/api/projects/{project.id}/escrow")) == (409, "escrow_begun")
    event = Event.objects.get(action="escrow_begun")
    assert json.loads(key)["private_key"] not in json.dumps(event.data)
    assert lead.get(f"/api/projects/{project.id}").json()["has_escrow"]


def test_escrow_begins_before_the_first_study(project, lead):
    factories.new_study(project)
    assert code_of(lead.post(f"/api/projects/{project.id}/escrow")) == (409, "project_has_studies")


@pytest.mark.parametrize("first", ["kept", "escrow"])
def test_identities_are_kept_or_sealed(project, lead, first):
    privacy = lead.get(f"/api/projects/{project.id}").json()["privacy"] | {"identities": "kept"}

    def keep():
        return lead.put(f"/api/projects/{project.id}/privacy", privacy, content_type=JSON)

    def begin():
        return lead.post(f"/api/projects/{project.id}/escrow")

    one, other, code = (
        (keep, begin, "identities_kept") if first == "kept" else (begin, keep, "escrow_begun")
    )
    assert one().status_code == 200
    assert code_of(other()) == (409, code)


# The command.


@pytest.fixture
def at_home(exported, lead, key, tmp_path):
    """A folder with the export and the key as files."""
    answer = lead.get(f"/api/exports/{exported.id}/file")
    (tmp_path / "export.zip").write_bytes(answer.getvalue())
    (tmp_path / "escrow.json").write_text(key)
    return tmp_path


def run(folder, *, username):
    """The command's exit status."""
    parser = argparse.ArgumentParser()
    reidentify_command.add_arguments(parser)
    given = ["--escrow", folder / "escrow.json", "--out", folder / "out.zip", "--as", username]
    return reidentify_command.run(
        parser.parse_args([str(each) for each in (folder / "export.zip", *given)])
    )


def test_the_command_does_it_for_a_file(at_home, exported):
    username = factories.lead_of(exported.project).username
    assert run(at_home, username=username) == 0
    check_identities(opened((at_home / "out.zip").read_bytes()))
    with pytest.raises(Conflict, match="there already"):
        run(at_home, username=username)


@pytest.mark.parametrize("how", ["another", "changed", "absent"])
def test_the_command_takes_only_what_was_exported(at_home, exported, how):
    export = at_home / "export.zip"
    if how == "another":
        export.write_bytes(b"zip")
    elif how == "changed":
        with ZipFile(export, "a") as archive:
            archive.writestr("more.txt", "more")
    else:
        export.unlink()
    with pytest.raises(Invalid) as refusal:
        run(at_home, username=factories.lead_of(exported.project).username)
    assert refusal.value.code == ("no_such_path" if how == "absent" else "export_unknown")
    assert not (at_home / "out.zip").exists()


def test_the_command_is_for_leads(at_home, exported):
    with pytest.raises(NotFound):
        run(at_home, username="nobody")
    reviewer = factories.new_member(exported.project, Role.REVIEWER)
    with pytest.raises(NotAllowed):
        run(at_home, username=reviewer.username)
