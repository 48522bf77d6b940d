"""Images and masks from files, as an evaluation sees them; what cannot be used has a name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mlworker.contract.artifacts import Array
from mlworker.contract.messages import SliceImage, Window
from mlworker.inference.geometry import Rgb, to_rgb
from mlworker.training.samples import DataError

Mask = npt.NDArray[np.bool_]

WINDOW_WIDTH: Final = 0.5  # log2 range of a drawn window's width
WINDOW_CENTRE: Final = 0.15  # how far its centre is moved, in widths


class FileMissing(DataError):
    """An image or a mask that a list names is not there."""


class FileUnreadable(DataError):
    """Not an image that can be read."""


class NotFinite(DataError):
    """Values that are not numbers: a mean over them would not be one either."""


class SizeMismatch(DataError):
    """A mask of another size than its image."""


class EmptyMask(DataError):
    """A mask of nothing, which no prompt can ask for."""


def read_image(
    path: Path, *, window: Window | None = None, near: np.random.Generator | None = None
) -> Rgb:
    """(rows, columns, 3) uint8 of a picture, or of stored values in a .npy file.

    8-bit grey and colour are kept; anything deeper is seen through ``window`` (in stored values),
    or from its lowest to its highest value. With ``near``, through one drawn near that: people set
    theirs by hand, and scanners differ in what they suggest.
    """
    stored = _stored(path)
    if near is not None and stored.ndim == 2:
        window = _window_near(window or _whole_range(stored), by=near)
    try:
        return to_rgb(
            stored,
            SliceImage(
                pixels_key=path.name,
                pixels_digest="0" * 64,
                height=stored.shape[0],
                width=stored.shape[1],
                window=window,
            ),
        )
    except (ValueError, IndexError) as error:
        raise FileUnreadable(f"{path} is no image: {error}") from error


def read_mask(path: Path, *, image: Rgb) -> Mask:
    """(rows, columns) bool: what is not zero; raises EmptyMask and SizeMismatch."""
    stored = _stored(path, grey=True)
    mask = stored.any(axis=2) if stored.ndim == 3 else stored != 0
    if mask.shape != image.shape[:2]:
        sizes = [" x ".join(map(str, size[::-1])) for size in (mask.shape, image.shape[:2])]
        raise SizeMismatch(f"{path} is {sizes[0]} pixels, its image {sizes[1]}")
    if not mask.any():
        raise EmptyMask(f"{path} is empty")
    return np.asarray(mask)


def _whole_range(stored: Array) -> Window:
    low, high = float(stored.min()), float(stored.max())
    return Window(centre=(low + high) / 2, width=max(high - low, 1e-6))


def _window_near(window: Window, *, by: np.random.Generator) -> Window:
    moved = by.uniform(-WINDOW_CENTRE, WINDOW_CENTRE) * window.width
    wider = 2 ** by.uniform(-WINDOW_WIDTH, WINDOW_WIDTH)
    return Window(centre=window.centre + moved, width=window.width * wider)


def _stored(path: Path, *, grey: bool = False) -> Array:
    if not path.is_file():
        raise FileMissing(f"{path} is not there")
    try:
        stored = (
            np.load(path, allow_pickle=False)
            if path.suffix == ".npy"
            else _decoded(path, grey=grey)
        )
    except (
        OSError,
        ValueError,
        EOFError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise FileUnreadable(f"{path} cannot be read: {error}") from error
    if stored.size == 0:
        raise FileUnreadable(f"{path} has no pixels")
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise NotFinite(f"{path} holds values that are not finite numbers")
    return np.asarray(stored)


def _decoded(path: Path, *, grey: bool) -> Array:
    with warnings.catch_warnings():
        # Above 90 megapixels a warning, which large slides deserve; above 180 an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):  # RGB would cut these off
                return np.asarray(picture)
            if grey and picture.mode in ("1", "L"):  # most masks, and a third of the memory
                return np.asarray(picture)
            return np.asarray(picture.convert("RGB"))
