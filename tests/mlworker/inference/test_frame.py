"""Preparation 2: exact centres and areas, there and back, on any size and any pixel aspect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlworker.contract.messages import Box, Point
from mlworker.inference.geometry import Frame

EXACT = Frame(preparation=2)
LENGTHS = st.integers(1, 700)


@given(LENGTHS, LENGTHS, st.data())
def test_a_pixel_s_centre_goes_there_and_back(height, width, data) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))

    point = Point(x=x, y=y, positive=True)
    ((column, row),) = EXACT.points((point,), height=height, width=width).tolist()

    # SAM adds half a pixel; the way back is the inverse of the stretch.
    assert (column + 0.5) / 256 * width - 0.5 == pytest.approx(x, abs=1e-3)
    assert (row + 0.5) / 256 * height - 0.5 == pytest.approx(y, abs=1e-3)


@given(LENGTHS, LENGTHS)
def test_the_whole_slice_is_the_whole_frame(height, width) -> None:
    box = EXACT.box(Box(x0=0, y0=0, x1=width, y1=height), height=height, width=width)

    assert (box + 0.5).tolist() == pytest.approx([0, 0, 256, 256], abs=1e-3)


@given(LENGTHS, LENGTHS)
def test_the_box_around_one_pixel_has_its_point_in_the_middle(height, width) -> None:
    x, y = width // 2, height // 3
    box = EXACT.box(Box(x0=x, y0=y, x1=x + 1, y1=y + 1), height=height, width=width)
    (point,) = EXACT.points((Point(x=x, y=y, positive=True),), height=height, width=width)

    torch.testing.assert_close((box[:2] + box[2:]) / 2, point, atol=1e-3, rtol=0)


@pytest.mark.parametrize("length", [512, 1024, 768])
def test_a_model_pixel_is_the_mean_of_what_it_covers(length) -> None:
    by = np.random.default_rng(1)
    rgb = by.integers(0, 256, (length, 256, 3), dtype=np.uint8)

    seen = EXACT.resized(rgb)

    share = length // 256
    expected = rgb.reshape(256, share, 256, 3).mean(axis=1)
    assert np.abs(seen - expected).max() <= 1


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (181, 258), (40, 900), (700, 33), (256, 256)]
)
def test_brightness_is_kept_on_any_size(height, width) -> None:
    y, x = np.mgrid[:height, :width]
    ramp = 40 + 150 * (x + 0.5) / width + 50 * (y + 0.5) / height
    rgb = np.repeat(ramp.astype(np.uint8)[..., None], 3, axis=2)

    seen = EXACT.resized(rgb)

    assert seen.shape == (256, 256, 3)
    assert abs(seen.mean() - rgb.mean()) < 2


def test_what_is_drawn_lies_where_its_point_says() -> None:
    """A bright pixel's centre of gravity in the frame is where its point goes, on odd sizes too."""
    for height, width in ((181, 259), (511, 333), (97, 801)):
        for x, y in ((0, 0), (width - 1, height - 1), (width // 2, height // 3)):
            rgb = np.zeros((height, width, 3), np.uint8)
            rgb[y, x] = 255
            seen = EXACT.resized(rgb)[..., 0].astype(float)
            rows, columns = np.mgrid[:256, :256]
            at = [(seen * axis).sum() / seen.sum() for axis in (columns, rows)]
            (point,) = EXACT.points((Point(x=x, y=y, positive=True),), height=height, width=width)
            # Where an axis is enlarged, the border pixels' own weight pulls by up to half a pixel.
            enlarged = max(256 / width, 256 / height, 1)
            assert np.abs(np.array(at) - point.numpy()).max() < 0.3 * enlarged + 0.25


def test_frames_of_other_sizes_keep_the_published_multiplication() -> None:
    large = Frame(size=1024)
    rgb = np.zeros((300, 500, 3), np.uint8)

    assert large.model_input(rgb).shape == (3, 1024, 1024)
    assert large.points((Point(x=250, y=150, positive=True),), height=300, width=500).tolist() == [
        [512, 512]
    ]
    assert large.to_slice(torch.zeros(1, 256, 256), height=300, width=500).shape == (1, 300, 500)
