"""Slices as small pictures for a page: the window applied, never larger than asked. Values only."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]  # (rows, columns) or (rows, columns, 3)
Shown = npt.NDArray[np.uint8]  # the same, 0 is black


def shown(
    stored: Array,
    *,
    slope: float,
    intercept: float,
    inverted: bool,
    window: tuple[float, float] | None,
) -> Shown:
    """A slice as a screen shows it; colour has no window."""
    if stored.ndim == 3 or window is None:
        return np.asarray(stored, np.uint8)
    centre, width = window
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    grey = np.clip((values - np.float32(centre - width / 2)) * np.float32(255 / width), 0, 255)
    return np.asarray(255 - grey if inverted else grey, np.uint8)


def brightest(slices: Iterable[Shown]) -> Shown:
    """Each pixel as bright as on any slice: what is written on one of them is seen."""
    result: Shown | None = None
    for each in slices:
        result = each.copy() if result is None else np.maximum(result, each, out=result)
    assert result is not None, "a series has slices"
    return result


def png(image: Shown, *, side: int) -> bytes:
    """A PNG whose longer side is at most ``side`` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
