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

# Of GrabCut, chosen for the best Dice on the published demo's masks.
_CORE: Final = 0.5  # of the box's size: foreground for sure
_MARGIN: Final = 0.1  # of the box's size, around it
_MARGIN_PX: Final = 2
_ROUNDS: Final = 1  # five give the same
_SIDE: Final = 256  # px to which a larger part is reduced: it would take seconds


def box_itself(rgb: Rgb, box: Box) -> Mask:
    """All pixels whose centres lie in the box."""
    x, y = _centres(rgb)
    return (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)


def inscribed_ellipse(rgb: Rgb, box: Box, *, share: float = 1.0) -> Mask:
    """The largest ellipse in the box, or one of a ``share`` of its size.

    A hard rival: organs and lesions are round.
    """
    x, y = _centres(rgb)
    u = (x - (box.x0 + box.x1) / 2) / ((box.x1 - box.x0) / 2 * share)
    v = (y - (box.y0 + box.y1) / 2) / ((box.y1 - box.y0) / 2 * share)
    return np.asarray(u**2 + v**2 <= 1)


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


def _centres(rgb: Rgb) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """x (1, columns) and y (rows, 1) of the pixels' centres."""
    height, width = rgb.shape[:2]
    return np.arange(width)[None] + 0.5, np.arange(height)[:, None] + 0.5
