"""Binary masks as run lengths: the one form in which masks travel and rest.

A mask of ``height`` x ``width`` slice pixels is read row by row, from the top left, as runs that
alternate background, foreground, background, … The first run is background and may be 0; no other
run is. Row-major order (unlike COCO's column-major one) is what canvases and DICOM frames use, so
neither side transposes.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Mask = npt.NDArray[np.bool_]  # (height, width)

MAX_SIDE = 16_384


class RunLengths(BaseModel):
    """A binary mask at slice size; ``counts`` sum to ``height * width``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(ge=1, le=MAX_SIDE)
    width: int = Field(ge=1, le=MAX_SIDE)
    counts: tuple[int, ...]

    @model_validator(mode="after")
    def _counts_tile_the_slice(self) -> Self:
        if any(count < 0 for count in self.counts):
            raise ValueError("a run length is negative")
        if any(count == 0 for count in self.counts[1:]):
            raise ValueError("a run after the first is empty")
        if sum(self.counts) != self.height * self.width:
            raise ValueError("the run lengths do not sum to height x width")
        return self


def encode(mask: Mask) -> RunLengths:
    """Run lengths of a (height, width) boolean mask."""
    height, width = mask.shape
    flat = np.concatenate(([False], mask.reshape(-1)))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate(([0], changes, [mask.size])))
    return RunLengths.model_construct(height=height, width=width, counts=tuple(counts.tolist()))


def decode(runs: RunLengths) -> Mask:
    """The (height, width) boolean mask of ``runs``."""
    values = np.arange(len(runs.counts)) % 2 == 1
    return np.repeat(values, runs.counts).reshape(runs.height, runs.width)


def area(runs: RunLengths) -> int:
    """Number of foreground pixels."""
    return sum(runs.counts[1::2])


def empty(height: int, width: int) -> RunLengths:
    """A mask without foreground."""
    return RunLengths(height=height, width=width, counts=(height * width,))


def compose(proposal: Mask, *, drawn: Mask, erased: Mask) -> Mask:
    """What the annotator sees: pixels drawn or erased by hand win over the model's proposal."""
    return (proposal | drawn) & ~erased


def dice(predicted: Mask, truth: Mask) -> float:
    """Twice the overlap, of both areas; 1 where both are empty."""
    assert predicted.shape == truth.shape
    areas = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(predicted & truth)) / areas if areas else 1.0
