"""Image files as the model may see them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from mlworker.contract.artifacts import Array
from mlworker.contract.messages import SliceImage
from mlworker.inference import geometry

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")


def read_rgb(path: Path) -> geometry.Rgb:
    """(rows, columns, 3) uint8 of an image file, or of stored values in a .npy file."""
    stored: Array = (
        np.load(path, allow_pickle=False)
        if path.suffix == ".npy"
        else np.asarray(Image.open(path).convert("RGB"))
    )
    image = SliceImage(
        pixels_key=path.name,
        pixels_digest="0" * 64,
        height=stored.shape[0],
        width=stored.shape[1],
    )
    return geometry.to_rgb(stored, image)
