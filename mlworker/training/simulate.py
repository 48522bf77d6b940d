"""A simulated annotator: prompts from a true mask and from what a prediction got wrong.

SAM-Med2D (arXiv 2308.16184, section 4.1, and its code). Masks are (rows, columns) bool arrays of
the model's frame, points (n, 2) xy of pixel indices, labels (n,) 1 for inside and 0 for outside,
boxes x0 y0 x1 y1 with the last column and row + 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

BOX_SHIFT: Final = 0.5  # of the shorter side: five times the published standard deviation of 0.1 …
BOX_SHIFT_PX: Final = 5  # … and at most so much
IGNORED: Final = -1  # SAM's label of "not a point": said where nothing is wrong


def box_of(mask: Mask) -> Floats:
    """The box around all of a mask, (4,); the mask must not be empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def shifted_box(mask: Mask, *, by: np.random.Generator) -> Floats:
    """The box of the mask's largest component, moved as a whole by up to 5 px, as published."""
    components, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count > 1:
        mask = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    box = box_of(mask)
    shorter = min(box[2] - box[0], box[3] - box[1])
    most = min(BOX_SHIFT_PX, int(shorter * BOX_SHIFT))
    if most > 0:
        box += np.tile(by.integers(-most, most, size=2), 2)
    return box


def jittered_box(mask: Mask, *, share: float, by: np.random.Generator) -> Floats:
    """The box around a mask with each side moved on its own by up to ``share`` of the box."""
    box = box_of(mask)
    size = np.tile(box[2:] - box[:2], 2)
    box = box + by.uniform(-share, share, size=4).astype(np.float32) * size
    height, width = mask.shape
    box = np.clip(box, 0, [width, height, width, height]).astype(np.float32)
    return box if box[2] > box[0] and box[3] > box[1] else box_of(mask)


def first_point(mask: Mask, *, by: np.random.Generator) -> tuple[Floats, Labels]:
    """One point anywhere inside the mask, (1, 2), or outside when it is empty; its label, (1,)."""
    inside = mask.any()
    return _draw(mask if inside else ~mask, count=1, by=by), np.array([int(inside)])


def corrections(
    predicted: Mask, mask: Mask, *, count: int, by: np.random.Generator
) -> tuple[Floats, Labels]:
    """Points anywhere in the error region, with replacement; (count, 2) and (count,).

    Where nothing is wrong the points are anywhere, and labelled as none.
    """
    wrong = predicted != mask
    if not wrong.any():
        points = by.integers(0, mask.shape[::-1], size=(count, 2)).astype(np.float32)
        return points, np.full(count, IGNORED)
    points = _draw(wrong, count=count, by=by)
    columns, rows = points.astype(np.intp).T
    return points, mask[rows, columns].astype(np.int64)


def _draw(region: Mask, *, count: int, by: np.random.Generator) -> Floats:
    inside = np.flatnonzero(region)
    rows, columns = np.divmod(inside[by.integers(0, inside.size, size=count)], region.shape[1])
    return np.stack([columns, rows], axis=1).astype(np.float32)
