"""Rectangles of a slice's pixels made black. Values only.

A box is x0 y0 = first column and row, x1 y1 = last + 1, on the slices ``first`` … ``last``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Array = npt.NDArray[Any]  # (rows, columns) or (rows, columns, 3)

COLOUR_BLACK: Final = 0


class BlackBox(BaseModel):
    """What is to be black, and on which slices (0 is the first)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x0: int
    y0: int
    x1: int
    y1: int
    first: int
    last: int

    def fits(self, *, rows: int, columns: int, slices: int) -> bool:
        """Whether it has an inside, all of which lies in the series."""
        return (
            0 <= self.x0 < self.x1 <= columns
            and 0 <= self.y0 < self.y1 <= rows
            and 0 <= self.first <= self.last < slices
        )

    def is_on(self, index: int) -> bool:
        """Whether it lies on the slice."""
        return self.first <= index <= self.last


def cover(stored: Array, boxes: Iterable[BlackBox], *, index: int, black: int) -> Array:
    """A copy of slice ``index`` with the boxes that lie on it filled."""
    covered = stored.copy()
    for box in boxes:
        if box.is_on(index):
            covered[box.y0 : box.y1, box.x0 : box.x1] = black
    return covered


def darkest(
    dtype: np.dtype[Any],
    *,
    bits: int,
    slope: float,
    intercept: float,
    inverted: bool,
    window: tuple[float, float],
) -> int:
    """The stored value at the window's dark end, (centre, width): it is shown as black.

    Not the least that the type holds: that would stretch every other window over the image.
    ``bits`` are those that are used of each value.
    """
    centre, width = window
    value = (centre + (width if inverted else -width) / 2 - intercept) / slope
    # Rounded away from the window's inside, which may be narrower than a step.
    outward = math.ceil if inverted == (slope > 0) else math.floor
    if dtype.kind == "i":
        least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    else:
        least, most = 0, 2**bits - 1
    return int(min(max(outward(value), least), most))
