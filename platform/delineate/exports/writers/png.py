"""PNG masks: one grey image per slice and label, 255 where the label is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

from delineate.exports.delineation import Delineation, File

FOREGROUND: Final = 255


def write_masks(delineation: Delineation) -> Iterator[File]:
    """One file per accepted mask, empty ones included; absent means that nobody looked."""
    for accepted in delineation.masks:
        mask = delineation.mask(accepted.slice_number, accepted.label_value)
        buffer = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * FOREGROUND).save(buffer, format="PNG")
        yield File(
            name=f"label-{accepted.label_value:03d}/slice-{accepted.slice_number:04d}.png",
            data=buffer.getvalue(),
            labels=(accepted.label_value,),
            slices=(accepted.slice_number,),
        )
