from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlworker.contract.artifacts import ArtifactError
from mlworker.contract.messages import Box, Point, SliceImage, Window
from mlworker.inference import geometry

COLOUR = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def _image(**changes):
    fields = {"pixels_key": "k", "pixels_digest": "a" * 64, "height": 4, "width": 6}
    return SliceImage(**fields | changes)


@pytest.mark.parametrize(
    ("hounsfield", "grey"),
    [(-1024, 0), (-161, 0), (-160, 0), (-60, 63), (40, 127), (239, 254), (240, 255), (3000, 255)],
)
def test_a_window_maps_modality_units_to_bytes(hounsfield, grey):
    stored = np.full((4, 6), (hounsfield + 1024) * 2, np.int16)
    window = Window(centre=40.0, width=400.0)  # -160 to 240

    rgb = geometry.to_rgb(stored, _image(slope=0.5, intercept=-1024.0, window=window))

    assert rgb.dtype == np.uint8
    assert (rgb == grey).all()


@given(
    arrays.arrays(np.int16, (4, 6)),
    st.floats(-2000, 2000),
    st.floats(1, 4000),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_monochrome1_is_the_negative_and_grey_is_three_equal_channels(stored, centre, width, slope):
    window = Window(centre=centre, width=width)

    rgb = geometry.to_rgb(stored, _image(slope=slope, window=window))
    inverted = geometry.to_rgb(stored, _image(slope=slope, window=window, inverted=True))

    assert rgb.shape == (4, 6, 3)
    assert (rgb == rgb[:, :, :1]).all()
    assert np.array_equal(inverted, 255 - rgb)


def test_colour_is_left_as_it_is():
    assert np.array_equal(geometry.to_rgb(COLOUR, _image()), COLOUR)


@pytest.mark.parametrize("value", [0, 7, -1000])
def test_a_slice_of_one_value_has_a_picture(value):
    rgb = geometry.to_rgb(np.full((4, 6), value, np.int16), _image())

    assert len(np.unique(rgb)) == 1


@pytest.mark.parametrize(
    "stored",
    [
        COLOUR.astype(np.uint16),
        COLOUR[:, :, :2],
        np.zeros((4, 6, 3, 1), np.uint8),
        np.zeros(24, np.int16),
        np.zeros((4, 6), complex),
        np.zeros((4, 6), bool),
    ],
    ids=["16-bit colour", "two channels", "four axes", "one axis", "complex", "boolean"],
)
def test_what_is_no_slice_is_refused(stored):
    with pytest.raises(ArtifactError, match="are not a slice"):
        geometry.to_rgb(stored, _image())


@pytest.mark.parametrize("length", [1, 2, 100, 181, 255, 256, 257, 258, 300, 512, 1000, 4096])
def test_rows_and_columns_are_chosen_as_the_published_code_does(length):
    """OpenCV's INTER_NEAREST: the floor of the scaled index, not of the pixel's centre."""
    ramp = np.zeros((length, 3, 3), np.uint8)
    ramp[:, :, 0] = (np.arange(length) % 256)[:, None]
    ramp[:, :, 1] = (np.arange(length) // 256)[:, None]
    std, mean = torch.tensor([58.395, 57.12]), torch.tensor([123.675, 116.28])

    tensor = geometry.PUBLISHED.model_input(ramp)[:2, :, 0].T * std + mean

    rows = tensor.round().int().numpy() @ [1, 256]
    assert rows.tolist() == [min(i * length // 256, length - 1) for i in range(256)]


@pytest.mark.parametrize(("height", "width"), [(512, 512), (181, 258), (1, 1), (64, 4096)])
def test_slice_corners_are_model_corners(height, width):
    points = (Point(x=0, y=0, positive=True), Point(x=width, y=height, positive=False))

    assert geometry.PUBLISHED.points(points, height=height, width=width).tolist() == [
        [0, 0],
        [256, 256],
    ]
    assert geometry.PUBLISHED.box(
        Box(x0=0, y0=0, x1=width, y1=height), height=height, width=width
    ).tolist() == [0, 0, 256, 256]


def test_x_is_the_column():
    points = (Point(x=129, y=0, positive=True),)

    assert geometry.PUBLISHED.points(points, height=181, width=258).tolist() == [[128, 0]]


@pytest.mark.parametrize(("length", "off"), [(128, 0.5), (256, 0.0), (512, -0.25), (1024, -0.375)])
def test_the_published_half_pixel_offset_is_kept(length, off):
    """A pixel's centre lies half a pixel inside on both sides; the published code ignores it."""
    index = 10  # its centre, in continuous coordinates: 10.5
    exact = (index + 0.5) * 256 / length - 0.5
    points = (Point(x=index, y=0, positive=True),)

    scaled = geometry.PUBLISHED.points(points, height=length, width=length)[0, 0].item()

    assert exact - scaled == pytest.approx(off)


def test_a_mask_is_seen_by_the_share_of_each_cell_it_covers():
    mask = np.zeros((128, 256), bool)
    mask[0:1, 0:4] = True  # half of the first cell, which is two rows by four columns
    mask[64:, 128:] = True

    probabilities = geometry.mask_to_low_res(mask)

    assert probabilities.shape == (64, 64)
    assert probabilities[0, 0] == 0.5
    assert probabilities.sum() == 0.5 + 32 * 32
    assert (probabilities[32:, 32:] == 1).all()


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_full_mask_is_certain_everywhere_whatever_its_size(height, width):
    assert (geometry.mask_to_low_res(np.ones((height, width), bool)) == 1).all()
    assert (geometry.mask_to_low_res(np.zeros((height, width), bool)) == 0).all()


@pytest.mark.parametrize(("height", "width"), [(512, 512), (181, 258), (40, 30)])
def test_a_mask_survives_the_way_to_the_model_and_back(height, width):
    y, x = np.mgrid[:height, :width]
    mask = ((x - 0.4 * width) / (0.3 * width)) ** 2 + ((y - 0.5 * height) / (0.2 * height)) ** 2 < 1

    logits = geometry.mask_to_low_res(mask) - 0.5
    back = (geometry.PUBLISHED.to_slice(logits[None], height=height, width=width)[0] > 0).numpy()

    assert 2 * (mask & back).sum() / (mask.sum() + back.sum()) > 0.96
