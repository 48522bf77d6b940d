"""From a zip at the front door to rows and pixels: what is stored, what is refused, and why."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from django.conf import settings
from django.test import Client
from pydicom import Dataset
from pydicom.sequence import Sequence

from delineate import storage
from delineate.audit.models import Event
from delineate.projects.models import Project
from delineate.studies import ingest, joining
from delineate.studies.models import Encoding, Instance, Series, Slice, Study, Subject
from mlworker.contract.artifacts import array_digest, unpack_array
from tests.delineate.factories import (
    ENHANCED_MR,
    ULTRASOUND_MULTIFRAME,
    browser_of,
    lead_of,
    new_model,
    new_project,
)
from tests.delineate.studies.files import fates, image, send, send_and_ingest, zipped

pytestmark = pytest.mark.django_db

STORED = ("stored", "")
ACROSS = [0, 1, 0, 0, 0, -1]  # sagittal


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def test_a_zip_becomes_a_study_ordered_by_position(project, lead):
    shuffled = [4.0, 0.0, 2.0]
    files = [image(z=z, seed=number) for number, z in enumerate(shuffled)]

    upload = send_and_ingest(lead, project, zipped(files))

    assert upload.state == "done"
    assert fates(upload) == [STORED] * 3
    assert (upload.files_total, upload.files_done) == (3, 3)
    study = Study.objects.get()
    assert (study.project, study.number, study.upload) == (project, 1, upload)
    series = Series.objects.get()
    assert (series.rows, series.columns, series.modality, series.number) == (8, 10, "CT", 4)
    assert (series.row_spacing_mm, series.column_spacing_mm) == (0.5, 0.75)
    assert series.slice_spacing_mm == 2.0
    assert (series.window_centre, series.window_width) == (40, 400)
    slices = list(Slice.objects.all())
    assert [slice_.index for slice_ in slices] == [0, 1, 2]
    assert [_place(slice_)[2] for slice_ in slices] == [0.0, 2.0, 4.0]
    for slice_ in slices:
        original = files[shuffled.index(_place(slice_)[2])].pixel_array
        stored = _stored(slice_)
        assert np.array_equal(stored, original)
        assert slice_.pixels_digest == array_digest(stored)
        assert (slice_.slope, slice_.intercept, slice_.inverted) == (1, -24, False)


def test_an_ingest_leaves_an_audit_event_and_no_blobs(project, lead):
    upload = send(lead, project, zipped([image()]))
    assert storage.exists(upload.blob_key(0))

    ingest.ingest(upload.id)

    assert not storage.exists(upload.blob_prefix.rstrip("/"))
    event = Event.objects.get(action="study_ingested")
    assert str(Study.objects.get().id) in event.subject


def test_encodings_are_owed_when_there_is_a_model(project, lead):
    new_model("cd" * 32)
    send_and_ingest(lead, project, zipped([image(z=0.0), image(z=1.0)]))
    assert Encoding.objects.filter(model_digest="cd" * 32).count() == 2


def test_encodings_are_not_owed_without_a_model(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    assert not Encoding.objects.exists()


def test_slices_without_positions_follow_their_instance_numbers(project, lead):
    files = [image(z=None, seed=n, InstanceNumber=number) for n, number in enumerate([3, 1, 2])]
    send_and_ingest(lead, project, zipped(files))
    first = Slice.objects.get(index=0)
    assert np.array_equal(_stored(first), files[1].pixel_array)
    assert Series.objects.get().slice_spacing_mm is None


def test_monochrome1_is_marked_as_inverted(project, lead):
    send_and_ingest(lead, project, zipped([image(photometric="MONOCHROME1")]))
    assert Slice.objects.get().inverted


def test_colour_has_no_window(project, lead):
    pixels = np.random.default_rng(1).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    send_and_ingest(lead, project, zipped([image(pixels=pixels, photometric="RGB")]))
    series = Series.objects.get()
    assert series.is_color
    assert series.window_centre is None
    assert np.array_equal(_stored(Slice.objects.get()), pixels)


def test_a_multi_frame_object_becomes_slices(project, lead):
    pixels = np.random.default_rng(2).integers(0, 255, (3, 6, 7), dtype=np.uint8)
    file = image(pixels=pixels, z=None, SOPClassUID=ULTRASOUND_MULTIFRAME)
    send_and_ingest(lead, project, zipped([file]))
    assert Instance.objects.get().number_of_frames == 3
    assert [slice_.frame_number for slice_ in Slice.objects.all()] == [1, 2, 3]
    assert all(
        np.array_equal(_stored(slice_), pixels[slice_.index]) for slice_ in Slice.objects.all()
    )


def test_frames_of_an_enhanced_object_are_ordered_by_their_own_positions(project, lead):
    pixels = np.random.default_rng(2).integers(0, 999, (3, 6, 7), dtype=np.uint16)
    file = image(pixels=pixels, z=None, SOPClassUID=ENHANCED_MR, RescaleSlope=None)
    file.SharedFunctionalGroupsSequence = Sequence([_group(spacing=[2, 3])])
    file.PerFrameFunctionalGroupsSequence = Sequence(
        [_group(z=z, slope=slope) for z, slope in ((5, 1), (0, 2), (2.5, 3))]
    )
    send_and_ingest(lead, project, zipped([file]))
    assert [slice_.frame_number for slice_ in Slice.objects.all()] == [2, 3, 1]
    assert [slice_.slope for slice_ in Slice.objects.all()] == [2, 3, 1]
    series = Series.objects.get()
    assert (series.row_spacing_mm, series.slice_spacing_mm) == (2, 2.5)


def test_without_a_window_nearly_all_values_are_shown(project, lead):
    pixels = np.arange(80, dtype=np.int16).reshape(8, 10)
    send_and_ingest(
        lead, project, zipped([image(pixels=pixels, WindowCenter=None, WindowWidth=None)])
    )
    series = Series.objects.get()
    assert series.window_centre == pytest.approx(39.5 - 24)
    assert series.window_width == pytest.approx(79 * 0.99)


def test_an_image_that_is_there_twice_is_a_duplicate(project, lead):
    file = image(sop="1.2.3.1.1")
    upload = send_and_ingest(lead, project, zipped([file, file]))
    assert fates(upload) == [STORED, ("duplicate", "duplicate")]
    again = send_and_ingest(lead, project, zipped([file]))
    assert fates(again) == [("duplicate", "duplicate")]
    assert Slice.objects.count() == 1


def test_another_image_of_the_same_uid_is_refused_and_changes_nothing(project, lead):
    first, second = image(sop="1.2.3.1.1", seed=1), image(sop="1.2.3.1.1", seed=2)
    upload = send_and_ingest(lead, project, zipped([first, second]))
    assert fates(upload) == [STORED, ("refused", "uid_conflict")]
    assert np.array_equal(_stored(Slice.objects.get()), first.pixel_array)
    later = send_and_ingest(lead, project, zipped([second]))
    assert fates(later) == [("refused", "uid_conflict")]
    assert np.array_equal(_stored(Slice.objects.get()), first.pixel_array)


def test_two_series_may_use_the_same_image_uid(project, lead):
    """Some devices number images anew in each series: neither may lose its pixels."""
    files = [image(sop="1.2.3.7", series=f"1.2.3.{n}", seed=n, SeriesNumber=n) for n in (1, 2)]
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload) == [STORED] * 2
    for series, file in zip(Series.objects.all(), files, strict=True):
        assert np.array_equal(_stored(series.slices.get()), file.pixel_array)


def test_a_series_that_is_worked_on_takes_no_more(project, lead):
    send_and_ingest(lead, project, zipped([image(z=0.0)]))
    joining.begin_work(Series.objects.get().id)
    upload = send_and_ingest(lead, project, zipped([image(z=1.0), image(series="1.2.3.2")]))
    assert fates(upload) == [("refused", "series_exists"), STORED]
    assert _objects("studies") == set(Slice.objects.values_list("pixels_key", flat=True))
    assert Slice.objects.count() == 2


def test_another_series_joins_its_study(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    upload = send_and_ingest(lead, project, zipped([image(series="1.2.3.2")]))
    assert fates(upload) == [STORED]
    assert Study.objects.get().series.count() == 2


def test_a_series_with_a_bad_image_is_refused_whole_and_leaves_nothing(project, lead):
    bad = image(z=1.0)
    bad.PixelData = bad.PixelData[:20]
    good = image(series="1.2.3.2")
    upload = send_and_ingest(lead, project, zipped([image(z=0.0), bad, good]))
    assert fates(upload) == [
        ("refused", "series_incomplete"),
        ("refused", "decode_failed"),
        STORED,
    ]
    assert _objects("studies") == {Slice.objects.get().pixels_key}


def test_a_study_of_two_patients_is_refused(project, lead):
    upload = send_and_ingest(lead, project, zipped([image(patient="A"), image(patient="B")]))
    assert fates(upload) == [("refused", "study_mixed_patients")] * 2
    assert not Study.objects.exists()


def test_another_patients_series_does_not_join_a_study(project, lead):
    send_and_ingest(lead, project, zipped([image(patient="A")]))
    upload = send_and_ingest(lead, project, zipped([image(patient="B", series="1.2.3.2")]))
    assert fates(upload) == [("refused", "study_mixed_patients")]
    assert Series.objects.count() == 1


@pytest.mark.parametrize(
    "other",
    [
        image(z=1.0, pixels=np.zeros((8, 11), np.int16)),
        image(z=1.0, ImageOrientationPatient=ACROSS),
        image(z=1.0, photometric="MONOCHROME1"),
        image(z=1.0, PixelSpacing=[0.5, 0.8]),
    ],
    ids=["size", "orientation", "kind", "spacing"],
)
def test_images_that_are_no_stack_with_the_others_are_a_volume_of_their_own(project, lead, other):
    stack = [image(z=float(z), sop=f"1.2.3.1.{z}") for z in range(3)]
    upload = send_and_ingest(lead, project, zipped([*stack, other]))
    assert fates(upload) == [("stored", "")] * 4
    large, small = Series.objects.order_by("volume")
    assert (large.volume, large.slices.count(), large.slice_spacing_mm) == (1, 3, 1.0)
    assert (small.volume, small.slices.count(), small.slice_spacing_mm) == (2, 1, None)
    assert large.series_uid == small.series_uid
    assert large.oddities == small.oddities == ["split_series"]


def test_volumes_of_a_series_are_recognised_when_they_come_again(project, lead):
    """Two echoes at every place."""
    files = [
        image(z=float(z), seed=4 * echo + z, EchoTime=echo, InstanceNumber=2 * z + echo)
        for z in range(3)
        for echo in (1, 2)
    ]
    first = send_and_ingest(lead, project, zipped(files))
    again = send_and_ingest(lead, project, zipped(files))
    assert fates(first) == [("stored", "")] * 6
    assert fates(again) == [("duplicate", "duplicate")] * 6
    assert [series.slices.count() for series in Series.objects.all()] == [3, 3]
    assert Series.objects.values("series_uid").distinct().count() == 1


def test_an_object_whose_frames_are_several_volumes_is_in_each(project, lead):
    groups = []
    for z, orientation in [(0.0, [1, 0, 0, 0, 1, 0]), (1.0, [1, 0, 0, 0, 1, 0]), (0.0, ACROSS)]:
        place, way, group = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient, way.ImageOrientationPatient = [0.0, 0.0, z], orientation
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [way]
        groups.append(group)
    pixels = np.random.default_rng(2).integers(0, 255, (3, 6, 7), dtype=np.uint8)
    enhanced = image(
        pixels=pixels, SOPClassUID=ENHANCED_MR, PerFrameFunctionalGroupsSequence=groups
    )
    upload = send_and_ingest(lead, project, zipped([enhanced]))
    assert fates(upload) == [("stored", "")]
    of_frames = [
        list(series.slices.values_list("frame_number", flat=True))
        for series in Series.objects.order_by("volume")
    ]
    assert of_frames == [[1, 2], [3]]
    series = Series.objects.get(volume=1)
    root = f"/dicomweb/{project.id}/studies/{series.study.study_uid}/series/{series.series_uid}"
    headers = json.loads(lead.get(f"{root}/metadata").getvalue())
    assert len(headers) == 1
    sop_uid = headers[0]["00080018"]["Value"][0]
    for number, expected in enumerate(pixels, start=1):
        response = lead.get(f"{root}/instances/{sop_uid}/frames/{number}")
        assert expected.tobytes() in response.content


def test_what_is_no_image_disturbs_nothing(project, lead):
    files: dict[str, Dataset | bytes] = {
        "a/1.dcm": image(),
        "a/notes.txt": b"hello",
        "__MACOSX/a/._1.dcm": b"litter",
        "../outside.dcm": image(series="1.2.3.2"),
    }
    upload = send_and_ingest(lead, project, zipped(files))
    assert fates(upload) == [
        STORED,
        ("refused", "not_dicom"),
        ("skipped", "litter"),
        ("refused", "unsafe_path"),
    ]


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("Rows", "US", [8, 9]),
        ("NumberOfFrames", "LO", "many"),
        ("BitsAllocated", "LO", "x"),
        ("InstanceNumber", "LO", "first"),
        ("SeriesNumber", "LO", "first"),
        ("RescaleSlope", "LO", "nan"),
        ("KVP", "LO", "a\0b"),
        ("SliceThickness", "FD", float("nan")),
    ],
)
def test_a_broken_header_never_fails_the_other_files(project, lead, keyword, vr, value):
    broken = image(study="1.2.4", series="1.2.4.1")
    if keyword in broken:
        del broken[keyword]
    broken.add_new(keyword, vr, value)
    upload = send_and_ingest(lead, project, zipped([broken, image()]))
    assert upload.state == "done"
    assert fates(upload)[1] == STORED


def test_running_twice_makes_no_doubles(project, lead):
    upload = send(lead, project, zipped([image(z=0.0), image(z=1.0)]))
    ingest.ingest(upload.id)
    ingest.ingest(upload.id)
    assert (Study.objects.count(), Slice.objects.count()) == (1, 2)
    assert Event.objects.filter(action="study_ingested").count() == 1


def test_files_without_a_patient_are_told_apart_by_folder(project, lead):
    files = {
        "one/1.dcm": image(patient=None, study="1.2.5", series="1.2.5.1"),
        "two/1.dcm": image(patient=None, study="1.2.6", series="1.2.6.1"),
    }
    send_and_ingest(lead, project, zipped(files))
    assert Subject.objects.count() == 2


def test_a_study_without_a_patient_may_lie_in_several_folders(project, lead):
    files = {
        "one/1.dcm": image(patient=None, series="1.2.3.1"),
        "two/1.dcm": image(patient=None, series="1.2.3.2"),
    }
    assert fates(send_and_ingest(lead, project, zipped(files))) == [STORED] * 2
    assert Study.objects.get().series.count() == 2


def test_files_that_name_nobody_are_taken_at_their_studys_word(project, lead):
    files = [image(patient=None, z=0.0), image(patient="A", z=1.0), image(patient=None, z=2.0)]
    assert fates(send_and_ingest(lead, project, zipped(files))) == [STORED] * 3
    other = image(patient="A", study="1.2.4", series="1.2.4.1")
    send_and_ingest(lead, project, zipped([other]))
    assert Subject.objects.count() == 1


def test_a_real_ct_is_stored_exactly(project, lead, shared_folder):
    folder = shared_folder / "data/dicom/series/neurolabusc+dcm_qa_ct/In/GE"
    if not folder.is_dir():
        pytest.skip(f"The GE CT series is not at {folder}.")
    paths = sorted(folder.glob("*.dcm"))
    upload = send_and_ingest(lead, project, zipped([path.read_bytes() for path in paths]))
    assert fates(upload) == [STORED] * 28
    by_position = {}
    for path in paths:
        original = pydicom.dcmread(io.BytesIO(path.read_bytes()))
        by_position[tuple(map(float, original.ImagePositionPatient))] = (
            original.pixel_array * float(original.RescaleSlope) + float(original.RescaleIntercept)
        )
    slices = list(Slice.objects.all())
    assert len(slices) == len(by_position) == 28
    for slice_ in slices:
        values = _stored(slice_) * slice_.slope + slice_.intercept
        assert np.array_equal(values, by_position[_place(slice_)])


def _stored(slice_: Slice) -> np.ndarray:
    return unpack_array(storage.get(slice_.pixels_key))


def _place(slice_: Slice) -> tuple[float, ...]:
    assert slice_.position is not None
    return tuple(slice_.position)


def _objects(prefix: str) -> set[str]:
    root = Path(settings.ENVIRONMENT.storage_url.removeprefix("file://"))
    return {os.path.relpath(path, root) for path in (root / prefix).rglob("*") if path.is_file()}


def _group(*, z: float | None = None, slope: float = 1, spacing: list[float] | None = None):
    group = Dataset()
    if spacing is not None:
        measures, plane = Dataset(), Dataset()
        measures.PixelSpacing = spacing
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        group.PixelMeasuresSequence = Sequence([measures])
        group.PlaneOrientationSequence = Sequence([plane])
    else:
        position, values = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, z]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, 0, "US"
        group.PlanePositionSequence = Sequence([position])
        group.PixelValueTransformationSequence = Sequence([values])
    return group


def test_the_series_of_a_study_are_listed_by_their_numbers(project, lead):
    files = [
        image(series=f"1.2.3.{number}", sop=f"1.2.3.{number}.1", SeriesNumber=number)
        for number in (30, 4, 501, 7)
    ]
    send_and_ingest(lead, project, zipped(files))
    (study,) = lead.get(f"/api/projects/{project.id}/studies").json()
    assert [series["number"] for series in study["series"]] == [4, 7, 30, 501]
