"""Preparation 1: a slice as the model sees it, and slice pixels <-> model pixels.

The published predictor's: intensities clipped to a window and scaled linearly to 0-255, three equal
channels (colour unchanged), the whole slice stretched to 256 x 256 by nearest neighbour, points
multiplied by 256 / width and 256 / height. That multiplication ignores that a pixel's centre lies
half a pixel inside: at 512 px a click lands a quarter of a model pixel off. It is kept, because the
published weights were trained and judged with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mlworker.contract.artifacts import Array, ArtifactError
from mlworker.contract.messages import Box, Point, SliceImage
from mlworker.model.sam_med2d import IMAGE_SIZE

# Of RGB in 0-255: SAM's, which are ImageNet's.
_MEAN = torch.tensor([123.675, 116.28, 103.53])
_STD = torch.tensor([58.395, 57.12, 57.375])

Rgb = npt.NDArray[np.uint8]  # (rows, columns, 3)


def to_rgb(stored: Array, image: SliceImage) -> Rgb:
    """Stored values, (rows, columns) or 8-bit (rows, columns, 3), -> what the model may see.

    Raises ArtifactError for an array of another form.
    """
    if stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8:
        return stored
    if stored.ndim != 2 or stored.dtype.kind not in "iuf":
        raise ArtifactError(f"{stored.dtype} values of shape {stored.shape} are not a slice")
    values = stored.astype(np.float32) * image.slope + image.intercept
    if image.window is None:
        low, high = float(values.min()), float(values.max())
    else:
        low = image.window.centre - image.window.width / 2
        high = image.window.centre + image.window.width / 2
    span = max(high - low, 1e-6)
    grey = ((np.clip(values, low, high) - low) * (255.0 / span)).astype(np.uint8)
    if image.inverted:
        grey = 255 - grey
    return np.repeat(grey[:, :, None], 3, axis=2)


def to_model_input(rgb: Rgb) -> Tensor:
    """(rows, columns, 3) -> (3, 256, 256) float32, normalised."""
    rows = _nearest(rgb.shape[0])
    columns = _nearest(rgb.shape[1])
    return normalise(rgb[rows[:, None], columns[None, :]])


def normalise(rgb: Rgb) -> Tensor:
    """(rows, columns, 3) of the model's size -> (3, rows, columns) float32."""
    return ((torch.from_numpy(rgb).float() - _MEAN) / _STD).permute(2, 0, 1)


def points_to_model(points: tuple[Point, ...], *, height: int, width: int) -> Tensor:
    """Clicks in slice pixels -> (n, 2) in model pixels, xy."""
    return torch.tensor(
        [[p.x * (IMAGE_SIZE / width), p.y * (IMAGE_SIZE / height)] for p in points],
        dtype=torch.float32,
    )


def box_to_model(box: Box, *, height: int, width: int) -> Tensor:
    """A box in slice pixels -> (4,) x0 y0 x1 y1 in model pixels."""
    x, y = IMAGE_SIZE / width, IMAGE_SIZE / height
    return torch.tensor([box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y], dtype=torch.float32)


def to_slice(low_res_logits: Tensor, *, height: int, width: int) -> Tensor:
    """(n, 64, 64) logits -> (n, height, width), by way of 256 x 256 as published."""
    at_model = functional.interpolate(
        low_res_logits[None], (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False
    )
    return functional.interpolate(at_model, (height, width), mode="bilinear", align_corners=False)[
        0
    ]


def mask_to_low_res(mask: npt.NDArray[np.bool_]) -> Tensor:
    """A mask at slice size -> (64, 64) probabilities: the share of each cell that it covers."""
    side = IMAGE_SIZE // 4
    return functional.interpolate(
        torch.from_numpy(mask).float()[None, None], (side, side), mode="area"
    )[0, 0]


def _nearest(length: int) -> npt.NDArray[np.intp]:
    # OpenCV's INTER_NEAREST: floor(i * scale), not the pixel centre's.
    indices = np.floor(np.arange(IMAGE_SIZE) * (length / IMAGE_SIZE)).astype(np.intp)
    return np.asarray(np.minimum(indices, length - 1))
