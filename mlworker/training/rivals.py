"""What a box gives without a model: the figures that a model has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from mlworker.contract.messages import Box
from mlworker.inference.geometry import Rgb

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

# Of GrabCut, chosen for the best Dice on the published demo's masks.
_CORE: Final = 0.5  # of the box's size: foreground for sure
_MARGIN: Final = 0.1  # of the box's size, around it
_MARGIN_PX: Final = 2
_ROUNDS: Final = 1  # five give the same
_SIDE: Final = 256  # px to which a larger part is reduced: it would take seconds


def box_itself(rgb: Rgb, box: Box) -> Mask:
    """All pixels whose centres lie in the box."""
    return _within(rgb, box, lambda x, y: (abs(x) < 1) & (abs(y) < 1))


def inscribed_ellipse(rgb: Rgb, box: Box, *, share: float = 1.0) -> Mask:
    """The largest ellipse in the box, or one of a ``share`` of its size.

    A hard rival: organs and lesions are round.
    """
    return _within(rgb, box, lambda x, y: x**2 + y**2 <= share**2)


def grabcut(rgb: Rgb, box: Box) -> Mask:
    """OpenCV's GrabCut from the box.

    What lies outside the box is background, an ellipse of half its size foreground, and the rest is
    cut. From the bare box GrabCut finds nothing at all in most CT slices (Dice 0.10 instead of 0.73
    on the published demo's masks), and would be no rival. It is shown the box with a margin: the
    background that matters is near.
    """
    height, width = rgb.shape[:2]
    margin = [max(_MARGIN_PX, _MARGIN * side) for side in (box.x1 - box.x0, box.y1 - box.y0)]
    left, right = int(max(0, box.x0 - margin[0])), int(min(width, np.ceil(box.x1 + margin[0])))
    top, bottom = int(max(0, box.y0 - margin[1])), int(min(height, np.ceil(box.y1 + margin[1])))
    part = rgb[top:bottom, left:right]
    moved = Box(x0=box.x0 - left, y0=box.y0 - top, x1=box.x1 - left, y1=box.y1 - top)
    labels = np.where(box_itself(part, moved), cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    labels[inscribed_ellipse(part, moved, share=_CORE)] = cv2.GC_FGD
    cut = _cut(part, labels)
    found = np.zeros((height, width), bool)
    found[top:bottom, left:right] = cut
    return found


def _cut(rgb: Rgb, labels: npt.NDArray[np.uint8]) -> Mask:
    height, width = labels.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    seeds = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    if {cv2.GC_BGD, cv2.GC_FGD} <= set(np.unique(seeds)):  # else there is nothing to learn from
        unused, models = (0, 0, 0, 0), (np.zeros((1, 65)), np.zeros((1, 65)))
        cv2.setRNGSeed(0)  # it begins with k-means
        cv2.grabCut(small, seeds, unused, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    kept = ((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)).astype(np.uint8)
    return np.asarray(cv2.resize(kept, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0)


RIVALS: Final[Mapping[str, Callable[[Rgb, Box], Mask]]] = {
    "the box itself": box_itself,
    "ellipse in the box": inscribed_ellipse,
    "GrabCut from the box": grabcut,
}


def _within(rgb: Rgb, box: Box, shape: Callable[[Floats, Floats], Mask]) -> Mask:
    """A shape of x (1, n) and y (n, 1) that run from -1 to 1 in the box, at pixels' centres."""
    height, width = rgb.shape[:2]
    left, right = int(max(0, box.x0)), int(min(width, np.ceil(box.x1)))
    top, bottom = int(max(0, box.y0)), int(min(height, np.ceil(box.y1)))
    x = (np.arange(left, right) + 0.5 - (box.x0 + box.x1) / 2) / ((box.x1 - box.x0) / 2)
    y = (np.arange(top, bottom) + 0.5 - (box.y0 + box.y1) / 2) / ((box.y1 - box.y0) / 2)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = shape(x[None], y[:, None])
    return mask
