"""How sure a model is of a slice that nobody has delineated.

A grid of single points is asked one by one, as somebody would who begins anywhere; all are decoded
together and compared at low resolution, so that a slice costs about what a few clicks do.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlworker.contract.messages import Point
from mlworker.inference.predictor import Predictor

_SIDE: Final = 3  # points of the grid, down and across
# Of the slice's sides, by which a point is moved: four of the model's 256 pixels, which is how far
# two people's clicks on one thing are apart at the least.
_MOVED: Final = 1 / 64


@dataclass(frozen=True, eq=False)
class Scores:
    """A SliceScore's numbers: means over the points."""

    predicted_iou: float
    disagreement: float
    instability: float
    features: npt.NDArray[np.float32]  # (256,)


@torch.inference_mode()
def score(predictor: Predictor, embedding: Tensor, *, height: int, width: int) -> Scores:
    """What a model thinks of a slice by its embedding, (256, 16, 16)."""
    asked = [
        _point(row, column, by, height=height, width=width)
        for by in (0.0, _MOVED)
        for row in range(_SIDE)
        for column in range(_SIDE)
    ]
    logits, ious = predictor.candidates_of_points(
        embedding, height=height, width=width, points=asked
    )
    masks = logits > 0  # (18, 3, 64, 64)
    best = masks[torch.arange(len(asked)), ious.argmax(dim=1)]  # what each point would be answered
    here, moved = torch.unflatten(best, 0, (2, -1))  # (9, 64, 64) each
    candidates = masks[: len(here)].unbind(1)
    believed = ious[: len(here)].max(dim=1).values.clamp(0, 1)
    agreed = [_iou(one, other) for one, other in combinations(candidates, 2)]
    return Scores(
        predicted_iou=float(believed.mean()),
        disagreement=1 - float(torch.stack(agreed).mean()),
        instability=1 - float(_iou(here, moved).mean()),
        features=features_of(embedding),
    )


def features_of(embedding: Tensor) -> npt.NDArray[np.float32]:
    """What slices are compared by: an embedding's mean over its places."""
    mean: npt.NDArray[np.float32] = embedding.float().mean(dim=(1, 2)).numpy()
    return mean


def _point(row: int, column: int, by: float, *, height: int, width: int) -> Point:
    by *= 1 if (row + column) % 2 else -1  # some there, some back
    return Point(
        x=((column + 0.5) / _SIDE + by) * width,
        y=((row + 0.5) / _SIDE + by) * height,
        positive=True,
    )


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Of masks (n, rows, columns) each with its other, (n,); two empty ones agree."""
    union = (one | other).sum(dim=(1, 2))
    shared = (one & other).sum(dim=(1, 2))
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)
