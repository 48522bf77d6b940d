"""NIfTI and NRRD as DICOM: values, places, and what is refused."""

from __future__ import annotations

import gzip
import io
from typing import Any

import nibabel
import nrrd
import numpy as np
import numpy.typing as npt
import pytest

from delineate.studies import pixels, volumes
from delineate.studies.archive import Refused
from delineate.studies.models import Series
from delineate.studies.volumes import NiftiPlace
from tests.delineate.factories import browser_of, lead_of, new_project
from tests.delineate.studies.files import fates, send_and_ingest, zipped

NAME = b"ZANZIBARD"


def turned(*, sides: tuple[float, float, float] = (0.7, 0.9, 2.5), left: bool = False) -> Any:
    """An affine with no axis of the patient's; ``left``: left-handed."""
    about = [[0.8, -0.36, 0.48], [0.6, 0.48, -0.64], [0.0, 0.8, 0.6]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about) @ np.diag(sides)
    affine[:3, 3] = (11.5, -7.25, 30.125)
    if left:
        affine[:3, 2] *= -1
    return affine


def values(dtype: Any = np.int16, shape: tuple[int, ...] = (5, 6, 4)) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def nifti(array: npt.NDArray[Any], affine: Any = None, **fields: Any) -> bytes:
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    for name, value in fields.items():
        image.header[name] = value
    data: bytes = image.to_bytes()
    return data


def frames(data: bytes) -> list[pixels.Frame]:
    dataset = volumes.to_dicom(data).dataset
    pixels.check_kind(dataset)
    return list(pixels.frames(dataset))


def refusal(data: bytes) -> str:
    with pytest.raises(Refused) as caught:
        volumes.to_dicom(data)
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_values_are_kept_exactly(dtype) -> None:
    array = values(dtype)
    kept = frames(nifti(array))
    assert len(kept) == 4
    for k, frame in enumerate(kept):
        np.testing.assert_array_equal(frame.stored, array[:, :, k].T)
        assert (frame.values.slope, frame.values.intercept) == (1.0, 0.0)


def test_negative_and_large_values_are_kept_exactly() -> None:
    array = values(np.int32)
    array[0, 0, 0], array[1, 0, 0] = -40_000, 100_000
    stored = np.stack([frame.stored for frame in frames(nifti(array))])
    np.testing.assert_array_equal(stored, array.T)


def test_slope_and_intercept_stay_beside_the_values() -> None:
    array = values()
    (first, *_) = frames(nifti(array, scl_slope=0.5, scl_inter=-3))
    np.testing.assert_array_equal(first.stored, array[:, :, 0].T)
    assert (first.values.slope, first.values.intercept) == (0.5, -3.0)


def test_fractions_are_kept_in_steps_that_nobody_sees() -> None:
    array = np.random.default_rng(1).normal(0, 3, (5, 6, 2)).astype(np.float32)
    array[0, 0, 0] = np.nan
    kept = frames(nifti(array))
    shown = np.stack([f.stored * f.values.slope + f.values.intercept for f in kept])
    expected = np.nan_to_num(array).T
    assert np.abs(shown - expected).max() <= np.ptp(expected) / 2**16


@pytest.mark.parametrize("left", [False, True])
def test_every_voxel_lies_where_the_header_puts_it(left) -> None:
    affine = turned(left=left)
    for k, frame in enumerate(frames(nifti(values(), affine))):
        place = frame.geometry
        assert place.orientation is not None
        assert place.position is not None
        across, down = np.array(place.orientation[:3]), np.array(place.orientation[3:])
        for column, row in [(0, 0), (4, 0), (0, 5), (2, 3)]:
            at = np.array(place.position)
            at = at + across * column * place.column_spacing_mm + down * row * place.row_spacing_mm
            right, anterior, superior, _ = affine @ (column, row, k, 1)
            np.testing.assert_allclose(at, (-right, -anterior, superior), atol=1e-4)


def test_compressed_is_the_same_and_second_is_read() -> None:
    data = nifti(values(), turned())
    packed = gzip.compress(data)
    assert volumes.is_volume(packed)
    np.testing.assert_array_equal(frames(packed)[2].stored, frames(data)[2].stored)
    second = nibabel.Nifti2Image(values(), turned()).to_bytes()
    assert volumes.is_volume(second)
    of_second, of_first = (frames(each)[1].geometry.position for each in (second, data))
    assert of_second == pytest.approx(of_first, abs=1e-6)


def test_a_header_that_does_not_say_where_it_lies_gives_no_place() -> None:
    image = nibabel.Nifti1Image(values(), None)
    image.header.set_zooms((0.7, 0.9, 2.5))
    volume = volumes.to_dicom(image.to_bytes())
    (first, *_) = pixels.frames(volume.dataset)
    assert first.geometry.position is None
    assert first.geometry.row_spacing_mm == pytest.approx(0.9)
    assert volume.place is None


def test_a_place_without_depth_is_none() -> None:
    """An export would look for slices where there are none."""
    data = bytearray(nifti(values(), turned()))
    data[254:256] = (1).to_bytes(2, "little")  # sform_code
    data[280:328] = np.array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], "<f4").tobytes()
    volume = volumes.to_dicom(bytes(data))
    (first, *_) = pixels.frames(volume.dataset)
    assert first.geometry.position is None
    assert volume.place is None


def test_moments_follow_each_other() -> None:
    array = values(shape=(5, 6, 4, 3))
    kept = frames(nifti(array, turned()))
    assert len(kept) == 12
    np.testing.assert_array_equal(kept[5].stored, array[:, :, 1, 1].T)
    assert kept[5].geometry.position == kept[1].geometry.position


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior"])
def test_an_nrrd_is_read_and_placed(encoding, space) -> None:
    affine = turned()
    header = {
        "space": space,
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "encoding": encoding,
    }
    buffer = io.BytesIO()
    nrrd.write(buffer, values(), header)
    kept = frames(buffer.getvalue())
    np.testing.assert_array_equal(kept[1].stored, values()[:, :, 1].T)
    signs = (1, 1, 1) if space.startswith("left") else (-1, -1, 1)
    expected = (affine[:3, 3] + affine[:3, 2]) * signs
    assert kept[1].geometry.position == pytest.approx(tuple(expected), abs=1e-6)


def test_nothing_else_of_a_header_is_taken_over() -> None:
    volume = volumes.to_dicom(nifti(values(), descrip=NAME, aux_file=NAME, intent_name=NAME))
    volume.dataset.PixelData = b""
    assert NAME.decode() not in str(volume)


def test_a_place_is_the_same_after_the_database() -> None:
    place = volumes.to_dicom(nifti(values(), turned())).place
    assert place is not None
    assert NiftiPlace.model_validate_json(place.model_dump_json()) == place


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (nifti(values())[:-20], "unreadable"),
        (gzip.compress(nifti(values()))[:-40], "unreadable"),
        (gzip.compress(b"a table of names"), "not_dicom"),
        (b"\x1f\x8b no gzip", "unreadable"),
        (b"NRRD0004\nno header", "unreadable"),
        (
            b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9 9 9\nencoding: bzip2\n\n",
            "unsupported_pixels",
        ),
        (nifti(values(np.complex64)), "unsupported_pixels"),
        (nifti(values(shape=(3, 3, 2, 2, 2))), "unsupported_dimensions"),
        (gzip.compress(nifti(np.zeros((400, 400, 70), np.int16))), "zip_bomb"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data, code) -> None:
    assert refusal(data) == code


def test_rows_that_are_not_at_right_angles_to_columns_are_refused() -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    assert refusal(nifti(values(), sheared)) == "sheared"


def test_an_nrrd_whose_values_lie_elsewhere_is_refused() -> None:
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    assert refusal(header + b"data file: /etc/passwd\n\n") == "unreadable"


@pytest.mark.django_db
@pytest.mark.parametrize("left", [False, True])
def test_a_volume_goes_in_by_the_front_door_as_one_even_stack(left) -> None:
    project = new_project()
    data = gzip.compress(nifti(values(), turned(left=left), descrip=NAME))
    lead = browser_of(lead_of(project))
    upload = send_and_ingest(lead, project, zipped({"anna/scan.nii.gz": data}))
    again = send_and_ingest(lead, project, data)

    assert fates(upload) == [("stored", "")]
    assert fates(again) == [("duplicate", "duplicate")]
    series = Series.objects.get()
    assert (series.rows, series.columns, series.slices.count()) == (6, 5, 4)
    assert series.slice_spacing_mm == pytest.approx(2.5)
    assert series.oddities == []
    order = list(series.slices.order_by("index").values_list("frame_number", flat=True))
    assert order == ([4, 3, 2, 1] if left else [1, 2, 3, 4])


@pytest.mark.django_db
def test_moments_are_volumes_of_their_own() -> None:
    project = new_project()
    data = nifti(values(shape=(5, 6, 4, 3)), turned())
    send_and_ingest(browser_of(lead_of(project)), project, data)
    assert [series.slices.count() for series in Series.objects.all()] == [4, 4, 4]
