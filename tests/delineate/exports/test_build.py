"""What an export's zip holds, how it is refused, and what happens to a job that is cut off."""

from __future__ import annotations

import gzip
import hashlib
import io
from datetime import timedelta

import nibabel
import numpy as np
import pydicom
import pytest
from django.utils import timezone

from delineate import jobs, storage
from delineate.annotation.transitions import State
from delineate.audit.chain import verify
from delineate.audit.models import Event
from delineate.exports.build import build, withdraw_outdated
from delineate.exports.models import Export, Format
from delineate.exports.services import request_export
from delineate.exports.writers import dicom_seg
from delineate.jobs import JobState
from delineate.projects.models import Role
from delineate.studies.services import delete_study
from tests.delineate import factories

pytestmark = pytest.mark.django_db

LEFT, RIGHT = np.zeros((2, 8, 10), bool)
LEFT[2:5, 1:4] = True
RIGHT[2:5, 5:9] = True
FOLDER = "study-0001/series-01"


@pytest.fixture
def project():
    """A project with two labels."""
    return factories.new_project("left lung", "Größe ½ 肺")


@pytest.fixture
def task(project):
    """A reviewed task, with nothing in it yet."""
    return factories.new_task(factories.new_series(factories.new_study(project)))


@pytest.fixture
def drawn(task, project):
    """The task with a mask of each label, side by side on its middle slice."""
    left, right = project.labels.all()
    factories.accept_mask(task, LEFT, index=1, label=left)
    factories.accept_mask(task, RIGHT, index=1, label=right)
    return task


def make_silent(export):
    """As if whoever ran the job had died a minute ago."""
    long_ago = timezone.now() - timedelta(minutes=1)
    Export.objects.filter(id=export.id).update(heartbeat_at=long_ago)


def test_labels_side_by_side_make_one_map(drawn, project, export_of):
    fetched = export_of(project, "nifti_label_map")
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(fetched.only("labels.nii.gz")))
    expected = np.zeros((10, 8, 3))
    expected[:, :, 1] = LEFT.T * 1 + RIGHT.T * 2
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)


def test_names_in_the_zip_are_of_plain_letters(drawn, project, export_of):
    fetched = export_of(project, "nifti")
    assert sorted(fetched.files) == [
        "manifest.json",
        f"{FOLDER}/label-001-left-lung.nii.gz",
        f"{FOLDER}/label-002-groe-12.nii.gz",
        f"{FOLDER}/provenance.json",
    ]


def test_the_manifest_has_the_digest_of_every_member(drawn, project, export_of):
    fetched = export_of(project, "dicom_seg")
    manifest = fetched.json("manifest.json")
    digests = {member["path"]: member["sha256"] for member in manifest["members"]}
    assert digests == {
        path: hashlib.sha256(data).hexdigest()
        for path, data in fetched.files.items()
        if path != "manifest.json"
    }
    assert manifest["format"] == "dicom_seg"
    assert (manifest["series"], manifest["masks"]) == (1, 2)
    assert manifest["export"] == str(fetched.export.id)


def test_equal_masks_give_equal_bytes(drawn, project, export_of):
    one, other = (export_of(project, "nifti").files for _ in range(2))
    assert one.pop("manifest.json") != other.pop("manifest.json")  # it names the export
    assert one == other


def test_every_mask_has_its_birth_certificate(drawn, project, export_of):
    model = factories.new_model()
    annotator = factories.new_member(project, Role.ANNOTATOR)
    left = project.labels.get(value=1)
    corrected = LEFT | RIGHT
    revision = factories.accept_mask(
        drawn,
        corrected,
        index=1,
        label=left,
        by=annotator,
        model_digest=model.digest,
        hand_drawn_share=0.25,
    )
    empty = factories.accept_mask(drawn, LEFT & RIGHT, index=2, label=left)
    certificate = export_of(project, "nifti").json(f"{FOLDER}/provenance.json")
    assert certificate["labels"][0]["accepted_slices"] == [2, 3]
    assert certificate["labels"][1] == {
        "value": 2,
        "name": "Größe ½ 肺",
        "color": factories.COLORS[1],
        "accepted_slices": [2],
    }
    about, _, about_empty = certificate["masks"]
    assert about == {
        "slice": 2,
        "label": 1,
        "revision": 2,
        "revision_id": str(revision.id),
        "by": annotator.username,
        "at": revision.at.isoformat(),
        "active_seconds": 1.5,
        "model_digest": model.digest,
        "model_name": model.name,
        "prompts": {"points": 0, "box": False},
        "hand_drawn_share": 0.25,
        "foreground_pixels": int(corrected.sum()),
        "digest": about["digest"],
    }
    assert about_empty["revision_id"] == str(empty.id)
    assert about_empty["foreground_pixels"] == 0
    assert about_empty["model_digest"] is None
    assert certificate["review"]["by"] == drawn.reviews.get().reviewer.username
    assert certificate["study"]["subject"] == "S-AAAAAAAAAAAA"
    assert [each["slices"] for each in certificate["files"]] == [[1, 2, 3], [1, 2, 3]]


def test_a_segment_says_who_made_it_and_how_it_looks(drawn, project, export_of):
    model = factories.new_model()
    left = project.labels.get(value=1)
    factories.accept_mask(
        drawn, LEFT, index=1, label=left, model_digest=model.digest, hand_drawn_share=0.1
    )
    written = pydicom.dcmread(io.BytesIO(export_of(project, "dicom_seg").only(".dcm")))
    by_model, by_hand = written.SegmentSequence
    assert by_model.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert by_model.SegmentAlgorithmName == "SAM-Med2D tiny"
    (algorithm,) = by_model.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmVersion == model.digest
    assert by_hand.SegmentAlgorithmType == "MANUAL"
    assert "SegmentAlgorithmName" not in by_hand
    assert by_hand.SegmentLabel == "Größe ½ 肺"
    assert written.SpecificCharacterSet == "ISO_IR 192"
    colors = [tuple(each.RecommendedDisplayCIELabValue) for each in written.SegmentSequence]
    assert len(set(colors)) == 2
    assert written.SegmentationType == "BINARY"
    assert written.BitsAllocated == 1


def test_what_several_models_made_is_told_apart_in_the_provenance(drawn, project, export_of):
    left = project.labels.get(value=1)
    digests = ["ab" * 32, "cd" * 32]
    for index, digest in enumerate(digests):
        factories.new_model(digest, is_default=False)
        factories.accept_mask(drawn, LEFT, index=index, label=left, model_digest=digest)
    fetched = export_of(project, "dicom_seg")
    segment = pydicom.dcmread(io.BytesIO(fetched.only(".dcm"))).SegmentSequence[0]
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmVersion == "2 versions"
    masks = fetched.json(f"{FOLDER}/provenance.json")["masks"]
    assert [each["model_digest"] for each in masks if each["label"] == 1] == digests


def test_a_segmentation_too_large_for_one_object_becomes_several(
    task, project, export_of, monkeypatch
):
    monkeypatch.setattr(dicom_seg, "PIXELS_AT_MOST", 2 * LEFT.size)
    for index in range(3):
        factories.accept_mask(task, LEFT, index=index, label=project.labels.get(value=1))
    fetched = export_of(project, "dicom_seg")
    assert fetched.export.state == "done", fetched.export.error_message
    objects = [
        pydicom.dcmread(io.BytesIO(fetched.files[f"{FOLDER}/segmentation-000{n}.dcm"]))
        for n in (1, 2)
    ]
    assert [each.NumberOfFrames for each in objects] == [2, 1]
    assert [each.InstanceNumber for each in objects] == [1, 2]


@pytest.mark.parametrize("format", Format.values)
def test_a_label_that_was_found_nowhere_is_exported_as_such(task, project, export_of, format):
    factories.accept_mask(task, LEFT & RIGHT, index=0, label=project.labels.get(value=1))
    fetched = export_of(project, format)
    assert fetched.export.state == "done", fetched.export.error_message
    assert fetched.json(f"{FOLDER}/provenance.json")["masks"][0]["foreground_pixels"] == 0


def test_what_nobody_reviewed_is_exported_when_asked_for(drawn, project, export_of):
    second = factories.new_series(factories.new_study(project))
    open_task = factories.new_task(second, state=State.IN_PROGRESS)
    factories.accept_mask(open_task, LEFT, index=0, label=project.labels.get(value=1))
    reviewed = export_of(project, "png")
    assert {path.partition("/")[0] for path in reviewed.files} == {"manifest.json", "study-0001"}
    everything = export_of(project, "png", reviewed_only=False)
    assert "study-0002/series-01/label-001/slice-0001.png" in everything.files
    assert everything.json("study-0002/series-01/provenance.json")["review"] is None
    assert (everything.export.series_done, everything.export.series_total) == (2, 2)


def test_every_series_that_cannot_be_written_is_named(drawn, project, export_of):
    left, right = project.labels.all()
    for _ in range(2):
        task = factories.new_task(factories.new_series(factories.new_study(project)))
        factories.accept_mask(task, LEFT, index=0, label=left)
        factories.accept_mask(task, LEFT, index=0, label=right)
    export = export_of(project, "nifti_label_map").export
    assert (export.state, export.error_code) == ("failed", "labels_overlap")
    for number in (2, 3):
        overlap = f"Study {number}, series 1: left lung and Größe ½ 肺 overlap on slice 1"
        assert overlap in export.error_message
    assert "Study 1," not in export.error_message
    assert not storage.exists(export.file_key)


def test_what_was_done_is_in_the_audit_trail(drawn, project, export_of):
    export = export_of(project, "nifti").export
    events = Event.objects.filter(subject=f"export {export.id}").order_by("number")
    assert [(event.actor, event.action) for event in events] == [
        (factories.lead_of(project).username, "export_requested"),
        ("system", "export_finished"),
        (factories.lead_of(project).username, "export_downloaded"),
    ]
    assert events[1].data == {
        "series": 1,
        "masks": 2,
        "bytes": export.size_bytes,
        "digest": export.digest,
    }
    assert hashlib.sha256(storage.get(export.file_key)).hexdigest() == export.digest
    assert verify(project.id)


def test_a_job_cut_off_in_the_middle_is_done_by_another(drawn, project):
    export = request_export(
        project, format=Format.NIFTI, reviewed_only=True, by=factories.lead_of(project)
    )
    dead = jobs.claim(Export, export.id)
    assert dead is not None
    build(export.id)
    export.refresh_from_db()
    assert (export.state, export.attempt) == (JobState.RUNNING, 1)  # not dead for long enough
    make_silent(export)
    assert [job.id for job in jobs.release_after_silence(Export)] == [export.id]
    build(export.id)
    build(export.id)
    export.refresh_from_db()
    assert (export.state, export.attempt) == (JobState.DONE, 2)
    assert Event.objects.filter(action="export_finished").count() == 1
    with pytest.raises(jobs.TakenOver):
        jobs.finish(dead)


def test_nothing_left_to_export_is_said(drawn, project):
    export = request_export(
        project, format=Format.PNG, reviewed_only=True, by=factories.lead_of(project)
    )
    drawn.state = State.IN_PROGRESS
    drawn.save()
    build(export.id)
    export.refresh_from_db()
    assert (export.state, export.error_code) == ("failed", "nothing_to_export")


def test_deleting_a_study_withdraws_the_exports_that_hold_it(drawn, project, export_of):
    lead = factories.lead_of(project)
    export = export_of(project, "png").export
    other_task = factories.new_task(factories.new_series(factories.new_study(project)))
    factories.accept_mask(other_task, LEFT, index=0, label=project.labels.get(value=1))
    delete_study(other_task.series.study, by=lead)
    withdraw_outdated()
    assert storage.exists(export.file_key)
    delete_study(drawn.series.study, by=lead)
    refused = factories.browser_of(lead).get(f"/api/exports/{export.id}/file")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "study_deleted")
    withdraw_outdated()
    export.refresh_from_db()
    assert (export.state, export.error_code) == ("failed", "study_deleted")
    assert not storage.exists(export.file_key)
