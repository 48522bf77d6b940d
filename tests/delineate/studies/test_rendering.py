"""Pictures of frames."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from delineate.studies.rendering import Shown, brightest, grey, picture


def test_a_window_runs_from_black_to_white():
    stored = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
    shown = Shown(slope=1, intercept=0, centre=40, width=400, is_inverted=False)
    assert grey(stored, shown).tolist() == [[0, 0, 128, 255, 255]]
    inverted = Shown(slope=1, intercept=0, centre=40, width=400, is_inverted=True)
    assert grey(stored, inverted).tolist() == [[255, 255, 127, 0, 0]]


def test_slope_and_intercept_come_before_the_window():
    shown = Shown(slope=2, intercept=-24, centre=40, width=400, is_inverted=False)
    assert grey(np.array([[32]], np.uint16), shown).tolist() == [[128]]


def test_a_window_of_one_is_a_threshold():
    shown = Shown(slope=1, intercept=0, centre=40, width=1, is_inverted=False)
    assert grey(np.array([[39, 40]], np.int16), shown).tolist() == [[0, 255]]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_a_png_is_the_pixels_and_a_viewport_holds_them_undistorted(shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    whole = Image.open(io.BytesIO(picture(pixels, media_type="image/png", most=None)))
    assert np.array_equal(np.asarray(whole), pixels)
    small = Image.open(io.BytesIO(picture(pixels, media_type="image/jpeg", most=(15, 100))))
    assert (small.format, small.size) == ("JPEG", (15, 10))


def test_what_is_written_on_one_slice_is_seen_among_all():
    slices = np.zeros((5, 4, 6), dtype=np.uint8)
    slices[3, 2, 1] = 250
    seen = brightest(iter(slices))
    assert (seen[2, 1], seen.sum()) == (250, 250)
    assert slices[0].sum() == 0
