"""A project that keeps identities: patients by their own names, from upload to export."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
import pytest

from delineate.annotation.models import Task
from delineate.exports.selectors import delineation_of
from delineate.exports.writers.dicom_seg import write_segmentations
from delineate.projects.privacy import Identities, Policy
from delineate.projects.services import change_privacy
from delineate.studies.models import Instance, Series, Study, Subject
from delineate.studies.selectors import header_of
from tests.delineate.factories import (
    accept_mask,
    browser_of,
    label_of,
    lead_of,
    new_project,
    new_task,
)
from tests.delineate.studies.files import fates, image, send_and_ingest, written

pytestmark = pytest.mark.django_db

PATIENT: dict[str, Any] = {
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19700101",
    "StudyDate": "20200131",
}


@pytest.fixture
def project():
    project = new_project()
    return change_privacy(project, policy=Policy(identities=Identities.KEPT), by=lead_of(project))


def ingest(project, *files):
    return send_and_ingest(browser_of(lead_of(project)), project, *map(written, files))


def test_headers_and_uids_are_as_they_came(project):
    assert fates(ingest(project, image(sop="1.2.3.1.1", **PATIENT))) == [("stored", "")]
    study, series, instance = Study.objects.get(), Series.objects.get(), Instance.objects.get()
    assert study.subject.pseudonym == "PAT-1"
    assert (study.study_uid, series.series_uid) == ("1.2.3", "1.2.3.1")
    header = header_of(instance)
    assert instance.sop_instance_uid == header.SOPInstanceUID == "1.2.3.1.1"
    assert {each: str(header[each].value) for each in PATIENT} == PATIENT
    assert header.PatientIdentityRemoved == "NO"


def test_equal_numbers_of_two_hospitals_are_two_patients(project):
    ingest(
        project,
        image(study="1.2.4", series="1.2.4.1", IssuerOfPatientID="A"),
        image(study="1.2.5", series="1.2.5.1", IssuerOfPatientID="B"),
    )
    subjects = set(Subject.objects.values_list("pseudonym", flat=True))
    assert subjects == {"PAT-1 (A)", "PAT-1 (B)"}


def test_who_has_no_number_or_one_that_is_too_long_has_a_pseudonym(project):
    ingest(
        project,
        image(study="1.2.4", series="1.2.4.1", patient=None, PatientName="Doe^Jane"),
        image(study="1.2.5", series="1.2.5.1", patient="P" * 60, IssuerOfPatientID="HOSPITAL"),
    )
    pseudonyms = Subject.objects.values_list("pseudonym", flat=True)
    assert all(each.startswith("S-") for each in pseudonyms)
    assert len(pseudonyms) == 2


def test_segmentations_name_the_patient(project):
    ingest(project, image(**PATIENT))
    series = Series.objects.get()
    task = new_task(series)
    mask = np.ones((series.rows, series.columns), dtype=np.bool_)
    accept_mask(task, mask, index=0, label=label_of(project, "liver"))
    delineation = delineation_of(task.pk, among=Task.objects.all())
    assert delineation is not None
    (file,) = write_segmentations(delineation)
    segmentation = pydicom.dcmread(io.BytesIO(file.data))
    assert (segmentation.PatientID, segmentation.PatientName) == ("PAT-1", "Doe^Jane")
    assert segmentation.PatientBirthDate == "19700101"
    assert segmentation.StudyInstanceUID == "1.2.3"
