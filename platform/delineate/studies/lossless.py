"""A slice's pixels as JPEG-LS (ISO 14495-1), which takes a third of the bytes and shows the same.

Made when they are first asked for, from pixels whose digest is right; decoded again and compared
before they are kept, beside the pixels. What JPEG-LS cannot hold, or the codec cannot do, goes
without: grey of 32 bits, pictures of a few pixels.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Final

import jpeg_ls
import numpy as np
from pydicom.uid import JPEGLSLossless

from delineate import storage
from delineate.errors import DelineateError, NotFound
from delineate.studies.models import Slice
from delineate.studies.selectors import bits_stored_of
from mlworker.contract.artifacts import Array, array_digest

logger = logging.getLogger(__name__)

TRANSFER_SYNTAX: Final = str(JPEGLSLossless)
_LEAST_BITS: Final = 2
_END_OF_IMAGE: Final = b"\xff\xd9"
_BY_PIXEL: Final = 2  # interleave mode: the samples of a pixel stand together


class PixelsDamaged(DelineateError):
    """What is kept is not what was stored."""

    code = "pixels_damaged"


def jpeg_ls_of(slice_: Slice) -> bytes | None:
    """A slice's frame as JPEG-LS, kept from the first time on; None where there cannot be one."""
    key = key_of(slice_)
    with contextlib.suppress(NotFound):
        kept = storage.get(key)
        # Nobody waited for the disk: where power failed, the name may be there without its content.
        if kept.endswith(_END_OF_IMAGE):
            return kept
    pixels = pixels_of(slice_)
    if array_digest(pixels) != slice_.pixels_digest:
        raise PixelsDamaged(
            "The pixels that are kept of this image are damaged; upload it again.",
            slice=str(slice_.id),
        )
    encoded = encoded_as_jpeg_ls(pixels, bits_stored=bits_stored_of(slice_))
    if encoded is not None:
        storage.put(key, encoded, durable=False)  # it can be made anew
        if not Slice.objects.filter(id=slice_.id, pixels_key=slice_.pixels_key).exists():
            # Its study was deleted meanwhile, or something blacked out of it: nothing is to be
            # left of what was there.
            storage.delete(key)
    return encoded


def key_of(slice_: Slice) -> str:
    """Where the JPEG-LS is kept, beside the pixels: what deletes a study's deletes these."""
    return f"{slice_.pixels_key.removesuffix('.npy')}.jls"


def pixels_of(slice_: Slice) -> Array:
    """A slice's stored values."""
    stored: Array = np.load(io.BytesIO(storage.get(slice_.pixels_key)), allow_pickle=False)
    return stored


def encoded_as_jpeg_ls(pixels: Array, *, bits_stored: int) -> bytes | None:
    """(rows, columns) or (rows, columns, 3) -> a code stream that decodes to the same, or None."""
    bits_allocated = pixels.dtype.itemsize * 8
    if bits_allocated > 16 or bits_stored < _LEAST_BITS:
        return None
    # Of words that use one byte the decoder makes bytes, which is not what their header says.
    bits = bits_stored if bits_stored > bits_allocated - 8 else bits_allocated
    rows, columns = pixels.shape[:2]
    samples = 3 if pixels.ndim == 3 else 1
    data = np.ascontiguousarray(pixels).tobytes()  # signed values as their two's complement
    try:
        encoded = bytes(
            jpeg_ls.encode_buffer(
                data,
                rows,
                columns,
                samples,
                bits,
                interleave_mode=_BY_PIXEL if samples > 1 else None,
            )
        )
        decoded, _ = jpeg_ls.decode_pixel_data(encoded)
    except (RuntimeError, ValueError) as error:  # the codec's own
        logger.info("No JPEG-LS of %d x %d pixels: %s", columns, rows, error)
        return None
    return encoded if bytes(decoded) == data else None
