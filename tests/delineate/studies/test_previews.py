"""Slices as pictures: the window, its inversion, the brightest of all, the size."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from delineate.studies import previews


def test_grey_is_shown_through_its_window():
    stored = np.array([[-100, 0, 50, 100, 900]], dtype=np.int16)
    seen = {
        inverted: previews.shown(
            stored, slope=2.0, intercept=-100.0, inverted=inverted, window=(0.0, 200.0)
        ).tolist()
        for inverted in (False, True)
    }
    assert seen == {False: [[0, 0, 127, 255, 255]], True: [[255, 255, 127, 0, 0]]}


def test_colour_is_shown_as_it_is():
    stored = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    seen = previews.shown(stored, slope=1.0, intercept=0.0, inverted=False, window=None)
    assert (seen == stored).all()


def test_what_is_written_on_one_slice_is_seen_among_all():
    slices = np.zeros((5, 4, 6), dtype=np.uint8)
    slices[3, 2, 1] = 250
    seen = previews.brightest(iter(slices))
    assert (seen[2, 1], seen.sum()) == (250, 250)
    assert slices[0].sum() == 0


def test_a_picture_is_never_larger_than_asked_and_keeps_its_shape():
    large = np.zeros((200, 400, 3), dtype=np.uint8)
    small = np.zeros((20, 40), dtype=np.uint8)
    sizes = [Image.open(io.BytesIO(previews.png(image, side=100))).size for image in (large, small)]
    assert sizes == [(100, 50), (40, 20)]
