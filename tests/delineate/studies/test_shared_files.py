"""Other people's files, as they are: stored exactly as pydicom reads them, or refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from benchmarks.conformance import OTHER_THINGS, as_pydicom_shows, shown
from delineate import storage
from delineate.studies import pixels
from delineate.studies.archive import Refused
from delineate.studies.kinds import Fate
from delineate.studies.models import Series, Slice
from delineate.studies.reference_pixels import kept_pixels
from mlworker.contract.artifacts import unpack_array
from tests.delineate.factories import browser_of, lead_of, new_project
from tests.delineate.studies.files import fates, send_and_ingest, zipped

# Folders of series: how many volumes their images are, and what is said of any of them.
SERIES: dict[str, tuple[int, set[str]]] = {
    "datalad+example-dicom-structural/dicoms": (1, set()),
    "icometrix+dicom2nifti/failing/gantrytilting/001": (1, {"gantry_tilt"}),
    "icometrix+dicom2nifti/failing/notavolume/001": (1, {"repeated_positions"}),
    "icometrix+dicom2nifti/failing/slicecount/001": (1, set()),
    "icometrix+dicom2nifti/failing/sliceincrement/001": (1, {"gaps"}),
    "icometrix+dicom2nifti/failing/sliceorientation/001": (2, {"split_series"}),
    "icometrix+dicom2nifti/ge/anatomical/001_single_slice": (1, set()),
    "neurolabusc+dcm_qa_ct/In/GE": (1, {"gantry_tilt", "gaps", "uneven_spacing"}),
    "udacity+nd320-c3-3d-imaging-starter/Study1/13_HCropVolume": (1, set()),
    "udacity+nd320-c3-3d-imaging-starter/Study3/11-T1post-18670": (1, set()),
}
SMALL_BYTES = 1_000_000


@pytest.mark.django_db
@pytest.mark.parametrize("folder", SERIES)
def test_a_series_goes_in_whole_exactly_and_as_the_volumes_that_it_is(folder, shared_folder):
    paths = _files(shared_folder / "data/dicom/series" / folder)
    project = new_project()
    files = {f"{number}.dcm": path.read_bytes() for number, path in enumerate(paths)}
    upload = send_and_ingest(browser_of(lead_of(project)), project, zipped(files))
    assert set(fates(upload)) == {("stored", "")}
    rows = Series.objects.all()
    assert (len(rows), {code for row in rows for code in row.oddities}) == SERIES[folder]
    kept = {unpack_array(storage.get(s.pixels_key)).tobytes() for s in Slice.objects.all()}
    assert kept == {_as_pydicom_reads(path).tobytes() for path in paths}


def test_single_files_go_in_as_pydicom_shows_them_or_are_refused_by_name(shared_folder):
    """Every file of an image that pydicom decodes goes in, with equal values after rescale."""
    listed = _files(shared_folder / "data/dicom/conformance")
    refused, lost = set(), []
    for path in (path for path in listed if path.stat().st_size <= SMALL_BYTES):
        try:
            dataset = pixels.parse(path.read_bytes())
            kind = pixels.check_kind(dataset)
            if kind.fate is Fate.REFERENCE:
                kept_pixels(dataset, kind)
                continue
            frames = list(pixels.frames(dataset))
        except Refused as reason:
            refused.add(reason.code)
            if reason.code not in OTHER_THINGS and as_pydicom_shows(path) is not None:
                lost.append((path.name, reason.code))
            continue
        expected = as_pydicom_shows(path)
        assert expected is not None
        np.testing.assert_array_equal(shown(frames, dataset), expected.squeeze())
    assert not lost
    assert refused == OTHER_THINGS | {"decode_failed", "unsupported_size", "unreadable"}


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        pytest.skip(f"The shared data have no {folder}.")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _as_pydicom_reads(path: Path) -> npt.NDArray[np.generic]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path).pixel_array
