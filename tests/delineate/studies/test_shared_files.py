"""Other people's files, as they are: stored exactly as pydicom reads them, or refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from delineate import storage
from delineate.studies import pixels
from delineate.studies.archive import Refused
from delineate.studies.models import Slice
from mlworker.contract.artifacts import unpack_array
from tests.delineate.factories import browser_of, lead_of, new_project
from tests.delineate.studies.files import fates, send_and_ingest, zipped

# Folders of series, and how many images of each go in: stacks need not be even, only parallel.
SERIES = {
    "datalad+example-dicom-structural/dicoms": 10,
    "icometrix+dicom2nifti/failing/gantrytilting/001": 4,
    "icometrix+dicom2nifti/failing/notavolume/001": 4,
    "icometrix+dicom2nifti/failing/slicecount/001": 2,
    "icometrix+dicom2nifti/failing/sliceincrement/001": 4,
    "icometrix+dicom2nifti/failing/sliceorientation/001": 0,
    "icometrix+dicom2nifti/ge/anatomical/001_single_slice": 1,
    "neurolabusc+dcm_qa_ct/In/GE": 28,
    "udacity+nd320-c3-3d-imaging-starter/Study1/13_HCropVolume": 32,
    "udacity+nd320-c3-3d-imaging-starter/Study3/11-T1post-18670": 22,
}
SMALL_BYTES = 1_000_000


@pytest.mark.django_db
@pytest.mark.parametrize("folder", SERIES)
def test_a_series_goes_in_whole_and_exactly_or_not_at_all(folder, shared_folder):
    paths = _files(shared_folder / "data/dicom/series" / folder)
    project = new_project()
    files = {f"{number}.dcm": path.read_bytes() for number, path in enumerate(paths)}
    upload = send_and_ingest(browser_of(lead_of(project)), project, zipped(files))
    stored = [path for path, fate in zip(paths, fates(upload), strict=True) if fate[0] == "stored"]
    assert len(stored) == SERIES[folder]
    assert {code for fate, code in fates(upload) if fate != "stored"} <= {"series_mixed_geometry"}
    kept = {unpack_array(storage.get(s.pixels_key)).tobytes() for s in Slice.objects.all()}
    assert kept == {_as_pydicom_reads(path).tobytes() for path in stored}


def test_single_files_are_decoded_as_pydicom_does_or_refused_by_name(shared_folder):
    decoded, refused = 0, set()
    for path in _files(shared_folder / "data/dicom/conformance"):
        if path.stat().st_size > SMALL_BYTES:
            continue
        try:
            dataset = pixels.parse(path.read_bytes())
            pixels.check_kind(dataset)
            frames = [frame.stored for frame in pixels.frames(dataset)]
        except Refused as reason:
            refused.add(reason.code)
            continue
        expected = _as_pydicom_reads(path)
        np.testing.assert_array_equal(frames if len(frames) > 1 else frames[0], expected)
        decoded += 1
    assert decoded > 100
    assert {"unsupported_kind", "no_pixels", "unsupported_photometric", "not_dicom"} <= refused


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        pytest.skip(f"The shared data have no {folder}.")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _as_pydicom_reads(path: Path) -> npt.NDArray[np.generic]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path).pixel_array
