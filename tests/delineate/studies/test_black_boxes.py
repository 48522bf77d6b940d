"""Boxes in slice pixels: what they cover, and what is black."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.studies import rendering
from delineate.studies.black_boxes import BlackBox, cover, darkest

BOX = BlackBox(x0=2, y0=1, x1=5, y1=3, first=1, last=2)


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)], ids=["grey", "colour"])
def test_a_box_covers_its_pixels_and_no_other(shape):
    stored = np.full(shape, 9, dtype=np.uint8)
    covered = cover(stored, [BOX], index=1, black=0)
    inside = np.zeros((6, 8), dtype=bool)
    inside[1:3, 2:5] = True
    assert (covered[inside] == 0).all()
    assert (covered[~inside] == 9).all()
    assert (stored == 9).all()


@pytest.mark.parametrize(("index", "touched"), [(0, False), (1, True), (2, True), (3, False)])
def test_a_box_lies_on_its_slices_alone(index, touched):
    covered = cover(np.full((6, 8), 9, dtype=np.uint8), [BOX], index=index, black=0)
    assert (covered == 0).any() == touched


@pytest.mark.parametrize(
    "changes",
    [
        {"x0": -1},
        {"y0": -1},
        {"x1": 9},
        {"y1": 7},
        {"x1": 2},
        {"y1": 1},
        {"x0": 6},
        {"first": -1},
        {"first": 3},
        {"last": 4},
    ],
    ids=str,
)
def test_a_box_without_an_inside_in_the_series_does_not_fit(changes):
    assert BOX.fits(rows=6, columns=8, slices=4)
    assert not BOX.model_copy(update=changes).fits(rows=6, columns=8, slices=4)


INSIDE = [
    # dtype, bits, slope, intercept, inverted, window -> stored
    (np.uint8, 8, 1.0, 0.0, False, (127.5, 255.0), 0),
    (np.uint8, 8, 1.0, 0.0, True, (127.5, 255.0), 255),
    (np.int16, 16, 1.0, -1024.0, False, (40.0, 400.0), 864),
    (np.int16, 16, 1.0, -1024.0, True, (40.0, 400.0), 1264),
    (np.uint8, 8, -1.0, 255.0, False, (100.0, 100.0), 205),
    (np.uint8, 8, -1.0, 255.0, True, (100.0, 100.0), 105),
    (np.uint8, 8, 0.5, 0.0, False, (50.25, 50.0), 50),
    (np.uint8, 8, 0.5, 0.0, True, (50.25, 50.0), 151),
]
# The window's dark end is no value that the used bits could say.
BEYOND = [
    (np.uint16, 12, 1.0, 0.0, False, (100.0, 4000.0), 0),
    (np.uint16, 12, 1.0, 0.0, True, (4000.0, 4000.0), 4095),
    (np.int16, 12, 1.0, 0.0, False, (0.0, 9000.0), -2048),
    (np.int16, 12, 1.0, 0.0, True, (0.0, 9000.0), 2047),
]
NAMES = ("dtype", "bits", "slope", "intercept", "inverted", "window", "expected")


@pytest.mark.parametrize(NAMES, [*INSIDE, *BEYOND])
def test_black_is_the_dark_end_of_the_window_or_the_last_value_before_it(
    dtype, bits, slope, intercept, inverted, window, expected
):
    black = darkest(
        np.dtype(dtype),
        bits=bits,
        slope=slope,
        intercept=intercept,
        inverted=inverted,
        window=window,
    )
    assert black == expected


@pytest.mark.parametrize(NAMES, INSIDE)
def test_it_is_black_on_the_screen(dtype, bits, slope, intercept, inverted, window, expected):
    centre, width = window
    shown = rendering.Shown(slope, intercept, centre, width, inverted)
    seen = rendering.grey(np.array([[expected]], dtype), shown)
    assert seen.tolist() == [[0]]
