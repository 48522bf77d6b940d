"""How well a mask matches the truth: Dice, IoU, and the distance between their outlines.

Masks are (rows, columns) bool arrays of one shape. An outline is the pixels of a mask that touch
what is outside it by an edge (the image ends where the mask does), at their centres. Distances are
in pixels, or in millimetres where ``spacing`` says how large a pixel is.

What is empty has defined results, so that a mean over masks always exists:

======================  ====  ===  ==================  ============
predicted, truth        Dice  IoU  HD95                surface Dice
======================  ====  ===  ==================  ============
both empty              1     1    0                   1
one of them empty       0     0    the image diagonal  0
======================  ====  ===  ==================  ============

The diagonal is the largest distance there can be: no answer is never better than a wrong one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from mlworker.contract.masks import dice

Mask = npt.NDArray[np.bool_]
Number = TypeVar("Number", float, npt.NDArray[np.float64])
Spacing = tuple[float, float]  # of a pixel, x and y

PIXELS: Final[Spacing] = (1.0, 1.0)
TOLERANCE: Final = 2.0  # two pixels, or two millimetres: about what two annotators differ by
_PERCENTILE: Final = 95.0


@dataclass(frozen=True)
class Scores:
    """One mask's figures; ``hd95`` in pixels or millimetres, the others from 0 to 1."""

    dice: float
    iou: float
    hd95: float
    surface_dice: float


def score(
    predicted: Mask, truth: Mask, *, spacing: Spacing = PIXELS, tolerance: float = TOLERANCE
) -> Scores:
    """All figures of one mask.

    HD95 is the larger of the two directed 95th percentiles. Surface Dice (arXiv 1809.04430) is the
    share of both outlines that lies within ``tolerance``, of HD95's unit, of the other one.
    """
    overlap = dice(predicted, truth)
    there, back = _distances(predicted, truth, spacing=spacing)
    if there.size == 0 and back.size == 0:
        hd95, surface_dice = 0.0, 1.0
    elif there.size == 0 or back.size == 0:
        rows, columns = truth.shape
        hd95, surface_dice = math.hypot(columns * spacing[0], rows * spacing[1]), 0.0
    else:
        hd95 = max(float(np.percentile(each, _PERCENTILE)) for each in (there, back))
        close = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
        surface_dice = close / (there.size + back.size)
    return Scores(overlap, iou_of(overlap), hd95, surface_dice)


def iou_of(dice: Number) -> Number:
    """The IoU that belongs to a Dice, or to an array of them: each is a function of the other."""
    return dice / (2 - dice)


def outline(mask: Mask) -> Mask:
    """Pixels of a mask with one of their four neighbours outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _distances(
    predicted: Mask, truth: Mask, *, spacing: Spacing
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From each pixel of the predicted outline to the nearest of the true one, and back.

    Of one that is empty there is nothing to measure: its array is empty.
    """
    points = [_outline_points(mask, spacing=spacing) for mask in (predicted, truth)]
    if any(each.size == 0 for each in points):
        # Any number per pixel does: only which of them is empty is asked.
        there, back = (np.zeros(len(each)) for each in points)
        return there, back
    # Outlines have thousands of pixels where a distance map has millions.
    there, _ = KDTree(points[1]).query(points[0])
    back, _ = KDTree(points[0]).query(points[1])
    return there, back


def _outline_points(mask: Mask, *, spacing: Spacing) -> npt.NDArray[np.float64]:
    """(n, 2) xy of the outline's pixels, in the spacing's unit."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return np.zeros((0, 2))
    top, left = rows[0], columns[0]
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]  # a large image is mostly empty
    y, x = np.nonzero(outline(part))
    return np.stack([(x + left) * spacing[0], (y + top) * spacing[1]], axis=1)
