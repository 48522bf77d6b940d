"""Figures of masks: by hand, against plain definitions, and of what is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from mlworker.contract.masks import dice
from mlworker.training.metrics import Scores, iou_of, outline, score


def square(left: int, top: int, side: int = 6):
    mask = np.zeros((24, 30), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_mask_matches_itself() -> None:
    assert score(square(3, 4), square(3, 4)) == Scores(1.0, 1.0, 0.0, 1.0)


def test_a_shifted_square_by_hand() -> None:
    scores = score(square(3, 4), square(6, 4), tolerance=1.0)

    assert scores.dice == pytest.approx(0.5)
    assert scores.iou == pytest.approx(1 / 3)
    assert scores.hd95 == 3.0
    # Of each outline's 20 pixels those are close that lie on the other square's top and bottom
    # rows, or one beside their ends, 4 + 4, and the two next to these rows on the crossing side.
    assert scores.surface_dice == pytest.approx(20 / 40)


def test_distances_are_in_millimetres_where_the_spacing_says_so() -> None:
    along_x = score(square(3, 4), square(6, 4), spacing=(0.5, 2.0))
    along_y = score(square(3, 4), square(3, 7), spacing=(0.5, 2.0))

    assert (along_x.hd95, along_y.hd95) == (1.5, 6.0)


def test_what_is_empty_has_defined_results() -> None:
    nothing, something = np.zeros((24, 30), bool), square(3, 4)
    diagonal = math.hypot(30 * 0.5, 24 * 2.0)

    assert score(nothing, nothing) == Scores(1.0, 1.0, 0.0, 1.0)
    for pair in ((nothing, something), (something, nothing)):
        assert score(*pair, spacing=(0.5, 2.0)) == Scores(0.0, 0.0, diagonal, 0.0)


def test_one_pixel_is_an_image_too() -> None:
    one = np.ones((1, 1), bool)

    assert score(one, one) == Scores(1.0, 1.0, 0.0, 1.0)
    assert score(~one, one) == Scores(0.0, 0.0, math.sqrt(2), 0.0)


def test_the_outline_ends_where_the_image_does() -> None:
    assert outline(np.ones((3, 4), bool)).sum() == 10


masks = arrays(bool, (9, 12), elements=st.booleans())


@given(masks, masks)
def test_figures_are_those_of_distance_maps(predicted, truth) -> None:
    """Another way to the same numbers, in use elsewhere: a distance for every pixel."""
    if not (predicted.any() and truth.any()):
        return
    tolerance, spacing = 1.5, (0.7, 1.3)
    edges = outline(predicted), outline(truth)
    far = [ndimage.distance_transform_edt(~edge, sampling=spacing[::-1]) for edge in edges]
    there, back = far[1][edges[0]], far[0][edges[1]]

    scores = score(predicted, truth, spacing=spacing, tolerance=tolerance)

    overlap = np.sum(predicted & truth)
    assert scores.iou == pytest.approx(overlap / np.sum(predicted | truth))
    assert scores.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    close = np.sum(there <= tolerance) + np.sum(back <= tolerance)
    assert scores.surface_dice == pytest.approx(close / (there.size + back.size))


@given(masks, masks)
def test_figures_do_not_depend_on_which_mask_is_the_truth(one, other) -> None:
    assert score(one, other) == score(other, one)
    assert 0 <= iou_of(dice(one, other)) <= dice(one, other) <= 1
