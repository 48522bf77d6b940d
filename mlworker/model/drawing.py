"""A prompt encoder that also draws its prompts where the decoder looks for the last mask.

SAM's decoder learns from millions of masks what the sines of a corner's place mean. A small model
has thousands; drawn as a mask prompt, a box or a click is seen where it is, and what is left to
learn is where the border lies. The weights and their names are SAM's, and so is what it gives.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor

from mlworker.model.torchvision_operators import modeling

CELL: Final = 4  # model pixels per pixel of a mask prompt
CLICK_PX: Final = 5.0  # standard deviation of the blot that a click makes, in model pixels
CORNERS: Final = 0.4  # how likely the corners of a box are, where its ellipse does not reach
INSIDE, OUTSIDE, FIRST_CORNER, SECOND_CORNER = 1, 0, 2, 3  # labels of points


class DrawingPromptEncoder(modeling.PromptEncoder):  # type: ignore[misc]
    """SAM's prompt encoder; its mask prompt is the given one, or a box's, with clicks on it."""

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Points ((N, n, 2), (N, n)), boxes (N, 4), masks (N, 1, 64, 64) -> sparse, dense."""
        size = self.input_image_size[0]
        with torch.no_grad():
            coordinates, labels = _with_corners(points, boxes)
            if coordinates is not None and labels is not None:
                if masks is None:
                    empty = coordinates.new_zeros(len(coordinates), 1, size // CELL, size // CELL)
                    masks = draw(empty, 0.0, coordinates, labels)
                else:
                    masks = draw(masks, 1.0, coordinates, labels)
        return cast(tuple[Tensor, Tensor], super().forward(points, boxes, masks))


def draw(masks: Tensor, given: Tensor | float, points: Tensor, labels: Tensor) -> Tensor:
    """Mask prompts (N, 1, side, side) with the points (N, n, 2) and boxes on them.

    Points are xy of model pixels, by label inside, outside or one of a box's two corners; any other
    is not drawn. ``given`` is 1 where the mask prompt counts and the box is not drawn any more, 0
    where there is none.
    """
    side = masks.shape[-1]
    lows = torch.arange(side, device=masks.device) * CELL - 0.5  # a cell's first edge
    box = _box(points, labels, lows=lows)
    drawn = given * masks[:, 0] + (1 - given) * box
    away = (points[..., None] - (lows + CELL / 2)) ** 2  # (N, n, 2, side)
    blots = torch.exp(-away / (2 * CLICK_PX**2))
    blots = blots[:, :, 1, :, None] * blots[:, :, 0, None, :]  # (N, n, side, side)
    kinds = labels[..., None, None]
    drawn = 1 - (1 - drawn) * (1 - blots * (kinds == INSIDE)).prod(1)
    return (drawn * (1 - blots * (kinds == OUTSIDE)).prod(1))[:, None]


def _box(points: Tensor, labels: Tensor, *, lows: Tensor) -> Tensor:
    """(N, side, side): how likely each cell is, were the structure an ellipse in its box."""
    first = (points * (labels == FIRST_CORNER)[..., None]).sum(1)[..., None]  # (N, 2, 1)
    second = (points * (labels == SECOND_CORNER)[..., None]).sum(1)[..., None]
    covered = (torch.minimum(second, lows + CELL) - torch.maximum(first, lows)).clamp(
        0, CELL
    ) / CELL
    half = ((second - first) / 2).clamp(min=CELL / 2)
    off = ((lows + CELL / 2 - (first + second) / 2) / half) ** 2  # (N, 2, side)
    ellipse = torch.sigmoid(6 * (1 - off[:, 1, :, None] - off[:, 0, None, :]))
    likely = CORNERS + (1 - CORNERS) * ellipse
    there = (labels == FIRST_CORNER).any(1)[:, None, None]
    return covered[:, 1, :, None] * covered[:, 0, None, :] * likely * there


def _with_corners(
    points: tuple[Tensor, Tensor] | None, boxes: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """All points, a box being two of them."""
    coordinates, labels = points if points is not None else (None, None)
    if boxes is None:
        return coordinates, labels
    corners = boxes.reshape(-1, 2, 2)
    kinds = torch.tensor([FIRST_CORNER, SECOND_CORNER], device=boxes.device).expand(len(corners), 2)
    if coordinates is None or labels is None:
        return corners, kinds
    return torch.cat([coordinates, corners], 1), torch.cat([labels, kinds], 1)
