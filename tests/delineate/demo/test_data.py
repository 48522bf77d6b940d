"""The demo's DICOM files say what their values and places are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from delineate.demo import data
from delineate.studies.burned_in import Reason, reason_to_hold


def series_of(archive: bytes) -> list[pydicom.Dataset]:
    """The datasets of a zip, in the order of their names."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [pydicom.dcmread(io.BytesIO(opened.read(name))) for name in opened.namelist()]


def affine_of(series: list[pydicom.Dataset]) -> np.ndarray:
    """Voxel (column, row, slice) to NIfTI's millimetres, from the headers alone (PS3.3 C.7.6.2)."""
    first, last = (np.array(each.ImagePositionPatient, float) for each in (series[0], series[-1]))
    orientation = np.array(series[0].ImageOrientationPatient, float)
    row_mm, column_mm = (float(spacing) for spacing in series[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * column_mm
    affine[:3, 1] = orientation[3:] * row_mm
    affine[:3, 2] = (last - first) / (len(series) - 1)
    affine[:3, 3] = first
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.fixture(scope="module")
def magnetic_resonance():
    return series_of(data.magnetic_resonance_zip())


@pytest.fixture(scope="module")
def phantom():
    return series_of(data.phantom_zip())


def test_every_voxel_of_the_mr_volume_keeps_its_value_and_place(magnetic_resonance):
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    original = nibabel.Nifti1Image.from_filename(folder / "example4d.nii.gz").slicer[..., 0]
    stored = np.stack([each.pixel_array for each in magnetic_resonance])  # (slice, row, column)
    made = nibabel.Nifti1Image(stored.transpose(2, 1, 0), affine_of(magnetic_resonance))
    # Back from DICOM's axes to those of the file.
    codes = nibabel.aff2axcodes(original.affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(made.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    back = made.as_reoriented(turn)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), np.asanyarray(original.dataobj))
    np.testing.assert_allclose(back.affine, original.affine, atol=1e-5)


def test_the_mr_is_shown_with_the_face_up_and_the_right_on_the_left(magnetic_resonance):
    x_of_columns, _, _, _, y_of_rows, _ = magnetic_resonance[0].ImageOrientationPatient
    assert float(x_of_columns) > 0.9  # columns go to the patient's left
    assert float(y_of_rows) > 0.9  # rows go to the back


def test_slices_go_up_evenly(phantom):
    heights = [float(each.ImagePositionPatient[2]) for each in phantom]
    np.testing.assert_allclose(np.diff(heights), data.PHANTOM_SLICE_MM)
    assert [int(each.InstanceNumber) for each in phantom] == list(range(1, 41))


@pytest.mark.parametrize(
    ("place_mm", "hounsfield"),
    [
        ((-60, -10, 0), 112),  # liver
        ((98, 38, 8), 122),  # spleen
        ((14, 40, -60), 190),  # aorta
        ((0, 69, 30), 210),  # marrow
        ((-68, 0, 90), -850),  # right lung
        ((0, -190, 0), -1000),  # air in front
    ],
)
def test_a_tissue_has_its_density_where_it_lies(phantom, place_mm, hounsfield):
    to_voxel = np.linalg.inv(affine_of(phantom))
    x, y, z = place_mm
    column, row, index = np.rint((to_voxel @ [-x, -y, z, 1])[:3]).astype(int)
    dataset = phantom[index]
    values = dataset.pixel_array[row - 2 : row + 3, column - 2 : column + 3].astype(float)
    density = values.mean() * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    # 25 pixels of noise with 14 HU: their mean is off by more than 12 HU once in 50,000 times.
    assert abs(density - hounsfield) < 12


def test_equal_calls_give_equal_bytes():
    assert data.phantom_zip() == data.phantom_zip()
    assert data.magnetic_resonance_zip() == data.magnetic_resonance_zip()
    assert data.ultrasound_file() == data.ultrasound_file()


def test_every_instance_of_a_series_has_its_own_name(phantom, magnetic_resonance):
    for series in (phantom, magnetic_resonance):
        assert len({each.SOPInstanceUID for each in series}) == len(series)
        assert len({each.SeriesInstanceUID for each in series}) == 1
    assert phantom[0].StudyInstanceUID != magnetic_resonance[0].StudyInstanceUID


def test_the_ct_slice_is_pydicoms():
    dataset = pydicom.dcmread(io.BytesIO(data.computed_tomography_file()))
    assert (dataset.Modality, dataset.Rows, dataset.Columns) == ("CT", 128, 128)


def test_every_frame_of_the_ultrasound_has_a_name_in_it_and_is_held():
    dataset = pydicom.dcmread(io.BytesIO(data.ultrasound_file()))
    assert reason_to_hold(dataset) == Reason.ULTRASOUND
    frames = dataset.pixel_array
    assert len(frames) == data.ULTRASOUND_FRAMES
    left, top, right, bottom = data.ULTRASOUND_TEXT_BOX
    written = frames[:, top:bottom, left:right]
    assert (written.max(axis=(1, 2)) > 200).all()
    around = frames.copy()
    around[:, top:bottom, left:right] = 0
    assert not around[:, : bottom + 10].any()  # all of the text lies in its box
    assert (frames[:, 150, 300] != frames[0, 150, 300]).any()  # and it is a film
