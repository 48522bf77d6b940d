"""Every format over every geometry, read with nibabel and pydicom: each voxel, and its place."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from delineate.studies.models import Series
from tests.delineate import factories

pytestmark = pytest.mark.django_db

ROWS, COLUMNS = 8, 10
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
# A turn about two axes: no direction is an axis of the patient's.
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
# Towards the feet: slices in order of their normal come in falling z.
REVERSED = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def along(orientation, *distances, start=(-100.0, 50.5, 20.25)):
    """Positions at distances along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [tuple(np.array(start) + distance * normal) for distance in distances]


@dataclass(frozen=True)
class Case:
    """A series' geometry, and how many volumes a NIfTI needs for it."""

    name: str
    options: dict[str, Any]
    slices: int = 4
    volumes: int = 1
    placed: bool = True
    segmentations: int = 1


CASES = [
    Case("axial", {"spacing_mm": (0.7, 0.5)}),
    Case("sagittal", {"orientation": SAGITTAL, "positions": along(SAGITTAL, 0, 3, 6, 9)}),
    Case(
        "oblique",
        {"orientation": OBLIQUE, "positions": along(OBLIQUE, 0, 1.25, 2.5, 3.75)},
    ),
    Case("reversed", {"orientation": REVERSED, "positions": along(REVERSED, 0, 2, 4, 6)}),
    Case(
        "rounded to a tenth",
        {"positions": along(factories.AXIAL, 0.0, 0.6, 1.3, 1.9, start=(0, 0, 0))},
        volumes=1 + 1,
    ),
    Case(
        "rounded to a hundredth",
        {"positions": along(factories.AXIAL, 0.0, 0.63, 1.25, 1.88, start=(0, 0, 0))},
    ),
    Case("a gap", {"positions": along(factories.AXIAL, 0, 2, 8, 10)}, volumes=2),
    Case(
        "two spacings, tilted",
        {
            "orientation": (1.0, 0.0, 0.0, 0.0, 0.9483237, -0.3173047),
            "positions": [(-125.0, -123.54, z) for z in (5.84, 10.06, 14.28, 15.42, 22.8, 30.18)],
        },
        slices=6,
        volumes=2,
    ),
    Case(
        "two phases", {"positions": along(factories.AXIAL, 0, 0, 2, 2)}, volumes=3, segmentations=2
    ),
    Case("one slice", {}, slices=1),
    Case("no frame of reference", {"frame_of_reference": False}),
    Case(
        "multi-frame",
        {"sop_class_uid": factories.ENHANCED_MR, "frames_per_instance": 4, "modality": "MR"},
    ),
    Case(
        "two multi-frame objects",
        {"sop_class_uid": factories.ENHANCED_MR, "frames_per_instance": 2, "modality": "MR"},
        segmentations=2,
    ),
    Case(
        "radiograph",
        {"sop_class_uid": factories.COMPUTED_RADIOGRAPHY, "orientation": None, "modality": "CR"},
        slices=1,
        placed=False,
    ),
    Case(
        "ultrasound cine without spacing",
        {
            "sop_class_uid": factories.ULTRASOUND_MULTIFRAME,
            "orientation": None,
            "spacing_mm": None,
            "modality": "US",
            "frames_per_instance": 4,
        },
        placed=False,
        segmentations=3,
    ),
    Case("CT without place", {"orientation": None}, placed=False, segmentations=3),
]


@dataclass(frozen=True)
class World:
    """A series with masks of two labels that overlap, by slice number and label value."""

    series: Series
    masks: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def mask(self, number, value):
        """What was accepted, nothing where nothing was."""
        return self.masks.get((number, value), np.zeros((ROWS, COLUMNS), bool))

    def place_of(self, number, row, column):
        """Where a pixel's centre lies (LPS, mm), by the standard's equation."""
        series = self.series
        position = series.slices.get(index=number - 1).position
        directions = np.array(series.orientation)
        x, y = directions[:3], directions[3:]
        return position + x * series.column_spacing_mm * column + y * series.row_spacing_mm * row


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    """Each geometry."""
    return request.param


@pytest.fixture
def world(case):
    """Masks on all slices but one, among them a single voxel in a corner and an empty mask."""
    project = factories.new_project("<script>", "../../x")
    pixels = np.zeros((case.slices, ROWS, COLUMNS), np.int16)
    series = factories.new_series(factories.new_study(project), pixels=pixels, **case.options)
    task = factories.new_task(series)
    script, path = project.labels.all()
    random = np.random.default_rng(7)
    made = World(series)
    for index in range(max(1, case.slices - 1)):
        for label in (script, path):
            mask = random.random((ROWS, COLUMNS)) < 0.4
            mask[3, 4:7] = True  # both labels: they overlap
            made.masks[index + 1, label.value] = mask
    corner = np.zeros((ROWS, COLUMNS), bool)
    corner[ROWS - 1, COLUMNS - 1] = True
    made.masks[1, script.value] = corner
    if case.slices > 2:
        made.masks[2, path.value] = np.zeros((ROWS, COLUMNS), bool)
    for (number, value), mask in made.masks.items():
        label = project.labels.get(value=value)
        factories.accept_mask(task, ~mask, index=number - 1, label=label)
        factories.accept_mask(task, mask, index=number - 1, label=label)
    return made


def project_of(world):
    """The project of a world."""
    return world.series.study.project


FOLDER = "study-0001/series-01"


def test_nifti(case, world, export_of):
    fetched = export_of(project_of(world), "nifti")
    assert fetched.export.state == "done", fetched.export.error_message
    sidecar = fetched.json(f"{FOLDER}/provenance.json")
    names = {"label-001-script", "label-002-x"}
    assert {entry["name"].partition(".")[0] for entry in sidecar["files"]} == names
    assert len(sidecar["files"]) == 2 * case.volumes
    seen = []
    for entry in sidecar["files"]:
        image = nibabel.Nifti1Image.from_bytes(
            gzip.decompress(fetched.files[f"{FOLDER}/{entry['name']}"])
        )
        assert image.get_data_dtype() == np.uint8
        values = np.asarray(image.dataobj)
        assert values.shape == (COLUMNS, ROWS, len(entry["slices"]))
        (value,) = entry["labels"]
        for k, number in enumerate(entry["slices"]):
            np.testing.assert_array_equal(values[:, :, k].T, world.mask(number, value))
            seen.append((number, value))
            if case.placed:
                check_affine(image.affine, world, number, k)
        codes = int(image.header["sform_code"]), int(image.header["qform_code"])
        sheared = "tilted" in case.name
        assert codes == ((1, 0 if sheared else 1) if case.placed else (2, 2))
        if not sheared:
            np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    assert sorted(seen) == [(n + 1, v) for n in range(case.slices) for v in (1, 2)]
    assert sidecar["series"]["has_place"] is case.placed


def check_affine(affine, world, number, k):
    """Points of a slice lie where the slice's own header puts them."""
    for row, column in [(0, 0), (ROWS - 1, 0), (0, COLUMNS - 1), (3, 7)]:
        right, anterior, superior, _ = affine @ (column, row, k, 1)
        expected = world.place_of(number, row, column)
        np.testing.assert_allclose((-right, -anterior, superior), expected, atol=0.051)


def test_png(case, world, export_of):
    fetched = export_of(project_of(world), "png")
    assert fetched.export.state == "done", fetched.export.error_message
    expected = {
        f"{FOLDER}/label-{value:03d}/slice-{number:04d}.png" for number, value in world.masks
    }
    assert {path for path in fetched.files if path.endswith(".png")} == expected
    for (number, value), mask in world.masks.items():
        data = fetched.files[f"{FOLDER}/label-{value:03d}/slice-{number:04d}.png"]
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(data))), mask * np.uint8(255)
        )


def test_dicom_seg(case, world, export_of):
    fetched = export_of(project_of(world), "dicom_seg")
    assert fetched.export.state == "done", fetched.export.error_message
    objects = [pydicom.dcmread(io.BytesIO(d)) for p, d in fetched.files.items() if p[-4:] == ".dcm"]
    assert len(objects) == case.segmentations
    assert len({each.SeriesInstanceUID for each in objects}) == 1
    assert len({each.SOPInstanceUID for each in objects}) == len(objects)
    by_source = {
        (each.instance.sop_instance_uid, each.frame_number): each.index + 1
        for each in world.series.slices.select_related("instance")
    }
    seen = {}
    for written in objects:
        assert written.SOPClassUID == pydicom.uid.SegmentationStorage
        assert written.StudyInstanceUID == world.series.study.study_uid
        assert written.PatientID == world.series.study.subject.pseudonym
        labels = [segment.SegmentLabel for segment in written.SegmentSequence]
        assert labels == ["<script>", "../../x"]
        frames = written.pixel_array.reshape(-1, ROWS, COLUMNS)
        for frame, groups in zip(frames, written.PerFrameFunctionalGroupsSequence, strict=True):
            source = groups.DerivationImageSequence[0].SourceImageSequence[0]
            multiframe = "ReferencedFrameNumber" in source
            assert multiframe is (case.options.get("frames_per_instance", 1) > 1)
            number = by_source[
                source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber", 1)
            ]
            instance = world.series.instances.get(sop_instance_uid=source.ReferencedSOPInstanceUID)
            assert source.ReferencedSOPClassUID == instance.sop_class_uid
            value = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            seen[number, value] = frame
            if case.placed:
                check_place(written, groups, world, number)
            else:
                assert "PlanePositionSequence" not in groups
        if case.placed and world.series.frame_of_reference_uid:
            assert written.FrameOfReferenceUID == world.series.frame_of_reference_uid
    for place, mask in world.masks.items():
        frame = seen.pop(place, np.zeros((ROWS, COLUMNS)))
        np.testing.assert_array_equal(frame, mask)
    assert not any(frame.any() for frame in seen.values())


def check_place(written, groups, world, number):
    """A frame's own attributes put a pixel where its slice does."""
    shared = written.SharedFunctionalGroupsSequence[0]
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
    place = position + orientation[:3] * spacing[1] * 7 + orientation[3:] * spacing[0] * 3
    np.testing.assert_allclose(place, world.place_of(number, 3, 7), atol=0.001)


def test_a_label_map_of_overlapping_labels_is_refused_by_name(case, world, export_of):
    export = export_of(project_of(world), "nifti_label_map").export
    assert (export.state, export.error_code) == ("failed", "labels_overlap")
    assert "Study 1, series 1: <script> and ../../x overlap on slice" in export.error_message
