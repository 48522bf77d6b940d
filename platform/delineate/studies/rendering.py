"""A frame as a picture that any program shows: windowed to eight bits. Values only."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlworker.contract.artifacts import Array

JPEG_QUALITY: Final = 90


@dataclass(frozen=True)
class Shown:
    """How stored values become grey: to modality units, then through a window of these."""

    slope: float
    intercept: float
    centre: float
    width: float
    is_inverted: bool  # MONOCHROME1: the least value is white


def grey(stored: Array, shown: Shown) -> npt.NDArray[np.uint8]:
    """(rows, columns) stored values -> the same of 0 … 255, linear (PS3.3 C.11.2.1.2)."""
    values = stored.astype(np.float64) * shown.slope + shown.intercept
    width = max(shown.width - 1, 1e-9)
    scaled = np.clip((values - (shown.centre - 0.5)) / width + 0.5, 0, 1) * 255
    picture: npt.NDArray[np.uint8] = np.rint(255 - scaled if shown.is_inverted else scaled).astype(
        np.uint8
    )
    return picture


def brightest(slices: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Each pixel as bright as on any slice: what is written on one of them is seen."""
    result: npt.NDArray[np.uint8] | None = None
    for each in slices:
        result = each.copy() if result is None else np.maximum(result, each, out=result)
    assert result is not None, "a series has slices"
    return result


def picture(
    pixels: npt.NDArray[np.uint8],
    *,
    media_type: str,
    most: tuple[int, int] | None,
    quality: int = JPEG_QUALITY,
) -> bytes:
    """PNG or JPEG of grey or RGB pixels, made to fit ``most`` = (width, height), undistorted."""
    image = Image.fromarray(pixels)
    if most is not None:
        scale = min(most[0] / image.width, most[1] / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if media_type == "image/png":
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
