"""Objects beside the images: what is kept of them, what they are in, and who is shown them."""

from __future__ import annotations

import io
import json
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from django.test import Client
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from delineate import storage
from delineate.annotation.models import Task
from delineate.audit.models import Event
from delineate.projects.models import Project, Role
from delineate.studies import erasure, subjects
from delineate.studies.models import Encoding, Instance, Reference, Series, Study, Subject
from tests.delineate.factories import browser_of, lead_of, new_member, new_model, new_project
from tests.delineate.studies.files import fates, image, reread, send_and_ingest, zipped
from tests.delineate.studies.reference_files import (
    dose,
    images,
    parametric_map,
    segmentation,
    structures,
    whole_slide,
)

pytestmark = pytest.mark.django_db

STORED = ("stored", "")
KEPT = ("stored", "kept_as_reference")


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def test_references_go_in_beside_their_images_and_make_no_work(project, lead):
    new_model()
    source = images()
    beside = [segmentation(source), dose(), structures(source), parametric_map(), whole_slide()]

    upload = send_and_ingest(lead, project, zipped([*source, *beside]))

    assert fates(upload) == [STORED] * 3 + [KEPT] * 5
    assert "a segmentation" in upload.report[3]["message"]
    study = Study.objects.get()
    assert sorted(study.references.values_list("modality", flat=True)) == [
        *("MR", "RTDOSE", "RTSTRUCT", "SEG", "SM")
    ]
    assert (Series.objects.count(), Instance.objects.count(), Task.objects.count()) == (1, 3, 0)
    assert Encoding.objects.count() == 3
    event = Event.objects.get(action="study_ingested")
    assert (event.data["slices"], event.data["references"]) == (3, 5)
    [told] = lead.get(f"/api/projects/{project.id}/studies").json()
    assert {"modality": "SEG", "count": 1} in told["references"]


def test_references_point_at_our_images(project, lead):
    source = images()
    send_and_ingest(lead, project, zipped([*source, segmentation(source), structures(source)]))
    ours = set(Instance.objects.values_list("sop_instance_uid", flat=True))
    kept = headers()
    [series] = kept["SEG"].ReferencedSeriesSequence
    assert {each.ReferencedSOPInstanceUID for each in series.ReferencedInstanceSequence} == ours
    assert series.SeriesInstanceUID == Series.objects.get().series_uid
    [outlined] = kept["RTSTRUCT"].ROIContourSequence
    [on] = outlined.ContourSequence[0].ContourImageSequence
    assert on.ReferencedSOPInstanceUID in ours
    [roi] = kept["RTSTRUCT"].StructureSetROISequence
    assert roi.ReferencedFrameOfReferenceUID == Series.objects.get().frame_of_reference_uid


def test_references_keep_what_they_mean_and_no_text(project, lead):
    source = images()
    beside = [segmentation(source, label="Anna K."), structures(source, name="of Anna K.")]
    send_and_ingest(lead, project, zipped([*beside, dose(), parametric_map()]))
    kept = headers()
    first, second = kept["SEG"].SegmentSequence
    assert (first.SegmentNumber, first.SegmentLabel) == (1, "Segment 1")
    assert (second.SegmentNumber, second.SegmentAlgorithmType) == (2, "MANUAL")
    [code] = first.SegmentedPropertyTypeCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("10200004", "SCT")
    assert code.CodeMeaning == "Liver structure (body structure)"
    groups = kept["SEG"].PerFrameFunctionalGroupsSequence
    numbers = [each.SegmentIdentificationSequence[0].ReferencedSegmentNumber for each in groups]
    assert sorted(numbers) == [1, 1, 1, 2, 2, 2]
    [roi] = kept["RTSTRUCT"].StructureSetROISequence
    assert (roi.ROIName, roi.ROIGenerationAlgorithm) == ("ROI 1", "MANUAL")
    [contour] = kept["RTSTRUCT"].ROIContourSequence[0].ContourSequence
    assert contour.ContourData == [0, 0, 0, 4.5, 0, 0, 4.5, 3.25, 0]
    assert (kept["RTDOSE"].DoseUnits, kept["RTDOSE"].DoseGridScaling) == ("GY", 0.001)
    assert kept["RTDOSE"].GridFrameOffsetVector == [0, 2.5]
    [mapping] = kept["MR"].RealWorldValueMappingSequence
    assert mapping.RealWorldValueSlope == 1e-6
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "mm2/s"
    for header in kept.values():
        assert "Anna" not in header.to_json()
        assert "Kowalska" not in header.to_json()


@pytest.mark.parametrize(
    ("scheme", "value", "is_kept"),
    [
        ("SCT", "10200004", True),
        ("SRT", "T-62000", True),
        ("FMA", "7197", True),
        ("UCUM", "mm2/s", True),
        ("UCUM", "{Anna}", False),
        ("SCT", "Anna", False),
        ("SRT", "T-ANNA", False),
        ("99ANNA", "10200004", False),
        ("SCT", "", False),
    ],
)
def test_codes_are_kept_of_known_schemes_as_far_as_they_look_like_them(
    project, lead, scheme, value, is_kept
):
    made = segmentation(images())
    code = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    code.CodingSchemeDesignator, code.CodeValue = scheme, value
    send_and_ingest(lead, project, zipped([made]))
    [*codes] = headers()["SEG"].SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert [(each.CodingSchemeDesignator, each.CodeValue) for each in codes] == (
        [(scheme, value)] if is_kept else []
    )


@pytest.mark.parametrize(
    "syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless], ids=str
)
def test_pixels_leave_as_they_came(project, lead, syntax):
    made = dose()
    file = made
    if syntax == RLELossless:
        file = reread(made)
        file.compress(RLELossless)
    elif syntax is not None:
        file = reread(made, syntax)
        if syntax == ExplicitVRBigEndian:
            file.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    send_and_ingest(lead, project, zipped([file]))
    back = retrieved(lead, project)
    np.testing.assert_array_equal(back.pixel_array, made.pixel_array)
    assert back.DoseGridScaling == made.DoseGridScaling


def test_a_segmentation_comes_back_bit_by_bit_and_can_be_read_as_one(project, lead):
    made = segmentation(images())
    send_and_ingest(lead, project, zipped([made]))
    back = retrieved(lead, project)
    assert bytes(back.PixelData) == bytes(made.PixelData)
    read = highdicom.seg.Segmentation.from_dataset(back)
    assert list(read.segment_numbers) == [1, 2]


def test_a_map_of_fractions_comes_back(project, lead):
    made = parametric_map()
    send_and_ingest(lead, project, zipped([made]))
    assert retrieved(lead, project).FloatPixelData == made.FloatPixelData


def test_what_stands_behind_pixels_is_not_kept(project, lead):
    made = dose()
    made.PixelData = made.PixelData + b"Anna Kowalska was here"
    send_and_ingest(lead, project, zipped([made]))
    assert b"Anna" not in storage.get(Reference.objects.get().pixels_key)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (lambda: without(dose(), "PixelData"), "no_pixels"),
        (lambda: dose(Rows=9), "decode_failed"),
        (lambda: dose(Rows=0), "unsupported_size"),
        (lambda: dose(BitsAllocated=64), "unsupported_bits"),
        (lambda: dose(SamplesPerPixel=3), "unsupported_photometric"),
        (lambda: dose(NumberOfFrames=200_001), "too_many_frames"),
        (lambda: without(structures(images()), "ROIContourSequence"), "no_contours"),
        (lambda: whole_slide(kind="LABEL"), "slide_label"),
        (lambda: whole_slide(kind="OVERVIEW"), "slide_label"),
        (lambda: without(whole_slide(), "ImageType"), "slide_label"),
        (lambda: whole_slide(SpecimenLabelInImage="YES"), "slide_label"),
    ],
)
def test_references_that_cannot_be_kept_are_refused_by_name_and_alone(project, lead, file, code):
    upload = send_and_ingest(lead, project, zipped([image(study="1.2.3"), file()]))
    assert fates(upload) == [STORED, ("refused", code)]
    assert not Reference.objects.exists()


def test_a_study_of_references_alone_is_there_and_takes_its_images_later(project, lead):
    source = images()
    made = segmentation(source)
    assert fates(send_and_ingest(lead, project, zipped([made]))) == [KEPT]
    study = Study.objects.get()
    assert (study.series.count(), study.references.count()) == (0, 1)
    [told] = lead.get(f"/api/projects/{project.id}/studies").json()
    assert (told["series"], told["references"]) == ([], [{"modality": "SEG", "count": 1}])
    assert fates(send_and_ingest(lead, project, zipped(source))) == [STORED] * 3
    assert (Study.objects.get(), study.series.count()) == (study, 1)


def test_the_same_reference_is_a_duplicate_and_another_of_its_uid_a_conflict(project, lead):
    source = images()
    first = structures(source, sop="1.2.3.61")
    other = structures(source, sop="1.2.3.61", shift=1)
    same_dose = dose()
    changed = reread(same_dose)
    changed.PixelData = bytes(len(changed.PixelData))
    upload = send_and_ingest(lead, project, zipped([first, first, other, same_dose]))
    assert fates(upload) == [KEPT, ("duplicate", "duplicate"), ("refused", "uid_conflict"), KEPT]
    again = send_and_ingest(lead, project, zipped([first, other, same_dose, changed]))
    assert fates(again) == [("duplicate", "duplicate"), ("refused", "uid_conflict")] * 2
    assert Reference.objects.count() == 2


def test_a_reference_of_another_patient_does_not_go_in(project, lead):
    send_and_ingest(lead, project, zipped(images()))
    upload = send_and_ingest(lead, project, zipped([dose(PatientID="PAT-2")]))
    assert fates(upload) == [("refused", "study_mixed_patients")]
    assert objects() == [*filter(lambda key: key.endswith(".npy"), objects())]


def test_references_go_with_their_study_and_with_their_subject(project, lead):
    send_and_ingest(lead, project, zipped([dose()]))
    assert len(objects()) == 1
    study = Study.objects.get()
    assert lead.delete(f"/api/studies/{study.id}").status_code == 204
    assert not Reference.objects.exists()
    send_and_ingest(lead, project, zipped([dose()]))
    subject = Subject.objects.get()
    erased = subjects.erase(subject, pseudonym=subject.pseudonym, by=lead_of(project))
    erasure.erase(erased.id)
    assert not Reference.objects.exists()
    again = send_and_ingest(lead, project, zipped([dose()]))
    assert fates(again) == [("refused", "subject_erased")]


def test_dicomweb_lists_references_after_images(project, lead):
    source = images()
    made = segmentation(source)
    send_and_ingest(lead, project, zipped([*source, made, dose()]))
    [study] = searched(lead, project, "studies")
    assert study["00080061"]["Value"] == ["CT", "RTDOSE", "SEG"]
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([3], [5])
    series = searched(lead, project, "series")
    assert [each["00080060"]["Value"][0] for each in series] == ["CT", "RTDOSE", "SEG"]
    instances = searched(lead, project, "instances")
    assert len(instances) == 5
    assert instances[-1]["00080016"]["Value"] == [made.SOPClassUID]
    assert instances[-1]["00280008"]["Value"] == [6]
    assert [each["00201209"]["Value"] for each in series] == [[3], [1], [1]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("series?Modality=SEG", 1),
        ("series?Modality=CT", 1),
        ("series?ModalitiesInStudy=SEG", 3),
        ("studies?ModalitiesInStudy=SEG", 1),
        ("studies?Modality=RTDOSE", 1),
        ("studies?Modality=PT", 0),
        ("instances?SeriesNumber=7", 1),
        ("instances?Rows=8", 5),
        ("instances?DoseUnits=GY", 1),
        ("studies?DoseUnits=GY", 1),
        ("instances?limit=2", 2),
        ("instances?offset=2", 3),
        ("instances?offset=4", 1),
        ("instances?offset=9", 0),
        ("instances?limit=3&offset=1", 3),
    ],
)
def test_searches_find_references(project, lead, query, found):
    source = images()
    send_and_ingest(lead, project, zipped([*source, segmentation(source), dose()]))
    assert len(searched(lead, project, query)) == found


def test_pages_say_how_much_comes_after_them(project, lead):
    source = images()
    send_and_ingest(lead, project, zipped([*source, segmentation(source), dose()]))
    root = f"/dicomweb/{project.id}/instances"
    remaining = [lead.get(f"{root}?limit={limit}").headers.get("Warning", "") for limit in (2, 3)]
    assert ["3 additional" in remaining[0], "2 additional" in remaining[1]] == [True, True]
    assert "Warning" not in lead.get(f"{root}?limit=5").headers


def test_a_study_is_retrieved_with_its_references(project, lead):
    source = images()
    send_and_ingest(lead, project, zipped([*source, segmentation(source), structures(source)]))
    study = Study.objects.get().study_uid
    answer = lead.get(f"/dicomweb/{project.id}/studies/{study}", headers={"accept": "*/*"})
    files = answer.getvalue().split(b"DICM")[1:]
    assert len(files) == 5
    told = lead.get(f"/dicomweb/{project.id}/studies/{study}/metadata")
    modalities = [each["00080060"]["Value"][0] for each in told_in(told)]
    assert modalities == ["CT", "CT", "CT", "RTSTRUCT", "SEG"]


def test_frames_of_references_are_not_to_be_had(project, lead):
    send_and_ingest(lead, project, zipped([dose()]))
    answer = lead.get(f"{address(project)}/frames/1", headers={"accept": "*/*"})
    assert answer.status_code == 404
    assert "reference" in answer.json()["error"]["message"]


def test_slides_are_for_leads_alone(project, lead):
    upload = send_and_ingest(lead, project, zipped([whole_slide()]))
    assert "only project leads" in upload.report[0]["message"]
    annotator = browser_of(new_member(project, Role.ANNOTATOR))
    for kind in ("studies", "series", "instances"):
        assert searched(annotator, project, kind) == []
        assert len(searched(lead, project, kind)) == 1
    assert annotator.get(address(project)).json()["error"]["code"] == "in_quarantine"
    np.testing.assert_array_equal(retrieved(lead, project).pixel_array, whole_slide().pixel_array)


def test_compressed_slides_are_had_as_they_are(project, lead):
    made = reread(whole_slide())
    made.compress("1.2.840.10008.1.2.4.80")
    send_and_ingest(lead, project, zipped([made]))
    back = retrieved(lead, project)
    assert back.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
    np.testing.assert_array_equal(back.pixel_array, whole_slide().pixel_array)
    answer = lead.get(address(project), headers={"accept": "application/dicom"})
    assert answer.status_code == 406


def headers() -> dict[str, Dataset]:
    """What is kept of references, by modality."""
    return {each.modality: Dataset.from_json(each.header) for each in Reference.objects.all()}


def address(project: Project) -> str:
    """Of the only reference."""
    reference = Reference.objects.get()
    return (
        f"/dicomweb/{project.id}/studies/{reference.study.study_uid}"
        f"/series/{reference.series_uid}/instances/{reference.sop_instance_uid}"
    )


def retrieved(client: Client, project: Project) -> Dataset:
    """The only reference as a DICOM file."""
    answer = client.get(
        address(project), headers={"accept": "application/dicom; transfer-syntax=*"}
    )
    assert answer.status_code == 200, answer.content
    return pydicom.dcmread(io.BytesIO(answer.getvalue()))


def searched(client: Client, project: Project, what: str) -> list[dict[str, Any]]:
    """What a search finds."""
    answer = client.get(f"/dicomweb/{project.id}/{what}")
    assert answer.status_code == 200, answer.content
    found: list[dict[str, Any]] = answer.json()
    return found


def told_in(answer: Any) -> list[dict[str, Any]]:
    """The headers of a metadata answer."""
    found: list[dict[str, Any]] = json.loads(answer.getvalue())
    return found


def objects() -> list[str]:
    """The keys of what lies under studies."""
    return storage.list_keys("studies/")


def without(dataset: Dataset, keyword: str) -> Dataset:
    """A dataset that lacks an attribute."""
    delattr(dataset, keyword)
    return dataset
