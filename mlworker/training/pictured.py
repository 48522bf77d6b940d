"""An answer as a picture: the image around it, with the outlines of truth and prediction."""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from mlworker.contract.messages import Box
from mlworker.inference.geometry import Rgb
from mlworker.training.evaluate import Case
from mlworker.training.pictures import read_image, read_mask

SIDE: Final = 300  # px of the picture's longer side
# Told apart by people who do not see red or green.
TRUTH: Final = (64, 224, 255)
PREDICTED: Final = (255, 140, 0)
PROMPT: Final = (255, 255, 255)
_AROUND: Final = 0.35  # of the truth's size, shown around it and the prompt
_LEAST: Final = 16  # px shown around it

Mask = npt.NDArray[np.bool_]


def picture(case: Case) -> bytes:
    """PNG of the part of the image that the truth, the prompt and most of the answer lie in.

    Reads the image and the mask again: of an evaluation only the answer is kept.
    """
    rgb = read_image(case.sample.image, window=case.sample.window)
    truth, predicted = read_mask(case.sample.mask, image=rgb), case.mask()
    left, top, right, bottom = _shown(truth, predicted)
    part = rgb[top:bottom, left:right]
    scale = SIDE / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    shrinks = scale < 1
    canvas = cv2.resize(
        part, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    ).astype(np.uint8)
    for mask, colour in ((truth, TRUTH), (predicted, PREDICTED)):
        _draw_outline(canvas, mask[top:bottom, left:right], colour=colour)
    if case.asked.box:
        _draw_box(canvas, case.asked.box, left=left, top=top, scale=scale)
    for point in case.asked.points:
        at = (round((point.x + 0.5 - left) * scale), round((point.y + 0.5 - top) * scale))
        cv2.circle(canvas, at, 5, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(canvas, at, 4, (80, 220, 80) if point.positive else (240, 70, 70), -1)
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, "PNG", optimize=True)
    return file.getvalue()


def _shown(truth: Mask, predicted: Mask) -> tuple[int, int, int, int]:
    """The truth with a margin, widened to the answer where it is of a comparable size."""
    box = _bounds(truth)
    if predicted.any() and np.count_nonzero(predicted) < 20 * np.count_nonzero(truth):
        other = _bounds(predicted)
        box = (
            min(box[0], other[0]),
            min(box[1], other[1]),
            max(box[2], other[2]),
            max(box[3], other[3]),
        )
    margin = max(_LEAST, round(_AROUND * max(box[2] - box[0], box[3] - box[1])))
    height, width = truth.shape
    return (
        max(0, box[0] - margin),
        max(0, box[1] - margin),
        min(width, box[2] + margin),
        min(height, box[3] + margin),
    )


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _draw_outline(canvas: Rgb, mask: Mask, *, colour: tuple[int, int, int]) -> None:
    size = (canvas.shape[1], canvas.shape[0])
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    contours, _ = cv2.findContours(large.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, colour, 1, cv2.LINE_AA)


def _draw_box(canvas: Rgb, box: Box, *, left: int, top: int, scale: float) -> None:
    x0, x1 = (round((x - left) * scale) for x in (box.x0, box.x1))
    y0, y1 = (round((y - top) * scale) for y in (box.y0, box.y1))
    for start in range(0, 4 * SIDE, 10):  # dashes, 5 px long
        for (ax, ay), (bx, by) in (
            ((x0 + start, y0), (min(x0 + start + 5, x1), y0)),
            ((x0 + start, y1), (min(x0 + start + 5, x1), y1)),
            ((x0, y0 + start), (x0, min(y0 + start + 5, y1))),
            ((x1, y0 + start), (x1, min(y0 + start + 5, y1))),
        ):
            if ax <= x1 and ay <= y1:
                cv2.line(canvas, (ax, ay), (bx, by), PROMPT, 1)
