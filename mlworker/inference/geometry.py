"""How a slice is prepared for the model, and the map between slice pixels and the model's frame.

Intensities are clipped to a window and scaled linearly to 0-255, in three equal channels (colour
unchanged); the whole slice is stretched to the model's square. Two preparations differ in how:

1. The published predictor's: the nearest pixel, points multiplied by size / width and size /
   height. That ignores that a pixel's centre lies half a pixel inside: at 512 px a click lands a
   quarter of a model pixel off. It is kept, because the published weights were trained and judged
with it. 2. Exact: each model pixel is the mean of the area it covers, and a point is its pixel's
centre.

A checkpoint says which one its weights were trained with. Curation, training and serving call this
module alike. Points name a pixel by its column and row; a box is its first column and row, and its
last ones + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

import cv2
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


@dataclass(frozen=True)
class Frame:
    """The square in which a model sees every slice, ``size`` pixels wide."""

    preparation: Literal[1, 2] = 1
    size: int = IMAGE_SIZE

    def model_input(self, rgb: Rgb) -> Tensor:
        """(rows, columns, 3) -> (3, size, size) float32, normalised."""
        return normalise(self.resized(rgb))

    def resized(self, rgb: Rgb) -> Rgb:
        """(rows, columns, 3) -> (size, size, 3)."""
        if self.preparation == 1:
            rows, columns = (self._nearest(length) for length in rgb.shape[:2])
            return rgb[rows[:, None], columns[None, :]]
        return _by_area(_by_area(rgb, rows=self.size), columns=self.size)

    def points(self, points: tuple[Point, ...], *, height: int, width: int) -> Tensor:
        """Clicks in slice pixels -> (n, 2) xy in model pixels, as SAM's prompt encoder has them."""
        x, y = self.size / width, self.size / height
        if self.preparation == 1:
            return torch.tensor([[p.x * x, p.y * y] for p in points], dtype=torch.float32)
        # The prompt encoder adds the half pixel that a centre lies inside.
        return torch.tensor(
            [[(p.x + 0.5) * x - 0.5, (p.y + 0.5) * y - 0.5] for p in points], dtype=torch.float32
        )

    def box(self, box: Box, *, height: int, width: int) -> Tensor:
        """A box in slice pixels -> (4,) x0 y0 x1 y1 in model pixels, likewise."""
        x, y = self.size / width, self.size / height
        corners = torch.tensor([box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y])
        return corners if self.preparation == 1 else corners - 0.5

    def to_slice(self, low_res_logits: Tensor, *, height: int, width: int) -> Tensor:
        """(n, size / 4, size / 4) logits -> (n, height, width), by way of the model's size."""
        at_model = functional.interpolate(
            low_res_logits[None], (self.size, self.size), mode="bilinear", align_corners=False
        )
        return functional.interpolate(
            at_model, (height, width), mode="bilinear", align_corners=False
        )[0]

    def _nearest(self, length: int) -> npt.NDArray[np.intp]:
        # OpenCV's INTER_NEAREST: floor(i * scale), not the pixel centre's.
        indices = np.floor(np.arange(self.size) * (length / self.size)).astype(np.intp)
        return np.asarray(np.minimum(indices, length - 1))


PUBLISHED: Final = Frame()


def normalise(rgb: Rgb) -> Tensor:
    """(rows, columns, 3) of the model's size -> (3, rows, columns) float32."""
    return ((torch.from_numpy(rgb).float() - _MEAN) / _STD).permute(2, 0, 1)


def mask_to_low_res(mask: npt.NDArray[np.bool_]) -> Tensor:
    """A mask at slice size -> (64, 64) probabilities: the share of each cell that it covers."""
    side = IMAGE_SIZE // 4
    return functional.interpolate(
        torch.from_numpy(mask).float()[None, None], (side, side), mode="area"
    )[0, 0]


def _by_area(rgb: Rgb, *, rows: int | None = None, columns: int | None = None) -> Rgb:
    """One axis at a time: OpenCV's area resampling is exact only where it shrinks."""
    height, width = rows or rgb.shape[0], columns or rgb.shape[1]
    shrinks = height < rgb.shape[0] or width < rgb.shape[1]
    resized = cv2.resize(
        rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return cast(Rgb, resized)
