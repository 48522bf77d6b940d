"""A real CT, its gantry tilted, its slices at two distances: from its files to its exports."""

from __future__ import annotations

import gzip
import io

import nibabel
import numpy as np
import pydicom
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from delineate.studies.ingest import ingest
from delineate.studies.models import Series
from delineate.studies.services import receive_upload
from tests.delineate import factories

pytestmark = pytest.mark.django_db

SERIES = "data/dicom/series/neurolabusc+dcm_qa_ct/In/GE"


@pytest.fixture
def original(shared_folder):
    """Every image's header, in order along the normal."""
    paths = [path for path in (shared_folder / SERIES).rglob("*") if path.is_file()]
    if not paths:
        pytest.skip(f"The shared data have no {SERIES}.")
    headers = [pydicom.dcmread(path) for path in paths]
    return sorted(headers, key=lambda header: header.ImagePositionPatient[2])


@pytest.fixture
def series(original):
    """The series as ingest stored it."""
    project = factories.new_project()
    files = []
    for number, dataset in enumerate(original):
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        files.append(SimpleUploadedFile(str(number), buffer.getvalue()))
    ingest(receive_upload(project, files=files, by=factories.lead_of(project)).id)
    return Series.objects.get(study__project=project)


def test_every_voxel_is_in_its_place(original, series, export_of):
    project = series.study.project
    task = factories.new_task(series)
    columns, rows = np.meshgrid(np.arange(series.columns), np.arange(series.rows))
    drawn = {}
    for index in (0, 13, 14, 27):
        drawn[index + 1] = (columns - 200 - index) ** 2 + (rows - 300) ** 2 < 40**2
        label = project.labels.get()
        factories.accept_mask(task, drawn[index + 1], index=index, label=label)
    fetched = export_of(project, "nifti")
    assert fetched.export.state == "done", fetched.export.error_message
    folder = "study-0001/series-01"
    entries = fetched.json(f"{folder}/provenance.json")["files"]
    assert [len(entry["slices"]) for entry in entries] == [14, 14]
    for entry in entries:
        image = nibabel.Nifti1Image.from_bytes(
            gzip.decompress(fetched.files[f"{folder}/{entry['name']}"])
        )
        values = np.asarray(image.dataobj)
        for k, number in enumerate(entry["slices"]):
            empty = np.zeros((series.rows, series.columns), bool)
            np.testing.assert_array_equal(values[:, :, k].T, drawn.get(number, empty))
            header = original[number - 1]
            along_row, along_column = np.split(np.array(header.ImageOrientationPatient, float), 2)
            between_rows, between_columns = map(float, header.PixelSpacing)
            place = np.array(header.ImagePositionPatient, float)
            place = place + along_row * 201 * between_columns + along_column * 333 * between_rows
            right, anterior, superior, _ = image.affine @ (201, 333, k, 1)
            np.testing.assert_allclose((-right, -anterior, superior), place, atol=0.01)


def test_the_segmentation_lies_on_the_images(original, series, export_of):
    task = factories.new_task(series)
    mask = np.zeros((series.rows, series.columns), bool)
    mask[100:200, 50] = True
    factories.accept_mask(task, mask, index=20, label=series.study.project.labels.get())
    fetched = export_of(series.study.project, "dicom_seg")
    assert fetched.export.state == "done", fetched.export.error_message
    written = pydicom.dcmread(io.BytesIO(fetched.only(".dcm")))
    np.testing.assert_array_equal(written.pixel_array, mask)
    (frame,) = written.PerFrameFunctionalGroupsSequence
    position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
    expected = np.array(original[20].ImagePositionPatient, float)
    np.testing.assert_allclose(position, expected, atol=1e-6)
