"""PNG, JPEG and TIFF become DICOM at the door: everything behind it knows one form of image.

A picture is a secondary capture, the pages of a TIFF its frames. Nothing but the pixels is taken
over: what cameras and programs write beside them (EXIF, comments, names) may say who somebody is.
Values only.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from pydicom import Dataset

from delineate.studies import pixels
from delineate.studies.archive import MAX_FILE_BYTES, Refused

_MAGIC: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS: Final = ("PNG", "JPEG", "TIFF")
_GREY: Final = ("L", "I;16", "I;16B", "I;16L")
Pages = npt.NDArray[Any]  # (pages, rows, columns) or (pages, rows, columns, 3)


def is_picture(data: bytes) -> bool:
    """Whether the first bytes are those of a PNG, JPEG or TIFF.

    A DICOM file may begin like a TIFF, too: its preamble is left to applications (PS3.10 7.1).
    """
    return data.startswith(_MAGIC) and data[128:132] != b"DICM"


def to_dicom(data: bytes) -> Dataset:
    """A picture as a DICOM object with UIDs of its bytes: the same one is the same object again.

    Raises Refused ``unreadable``, ``unsupported_size``, ``unsupported_bits``, ``too_many_frames``,
    ``pages_differ``, ``zip_bomb``.
    """
    pages = _pages(data)
    dataset = pixels.secondary_capture(pages, of=data, is_multi_frame=len(pages) > 1)
    if pages.ndim == 3 and pages.dtype == np.uint8:
        # As it looks elsewhere, and as models have learnt it: not stretched to what is in it.
        dataset.WindowCenter, dataset.WindowWidth = 127.5, 255
    return dataset


def _pages(data: bytes) -> Pages:
    try:
        with warnings.catch_warnings():
            # Its size is judged below, before anything is decoded; what it says of odd files is not
            # for the log.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                return np.stack(list(_decoded(picture)))
    except Refused:
        raise
    except UnidentifiedImageError as error:
        raise Refused("unreadable", "The file begins like a picture and is none.") from error
    except Exception as error:  # Pillow's parts raise what they like, down to SyntaxError
        raise Refused("unreadable", "The picture is damaged and cannot be read.") from error


def _decoded(picture: Image.Image) -> Iterator[npt.NDArray[Any]]:
    """Page by page; refused before more is decoded than may be."""
    first: npt.NDArray[Any] | None = None
    size = 0
    # In the other formats further pictures are previews, or move.
    pages = ImageSequence.Iterator(picture) if picture.format == "TIFF" else [picture]
    for number, page in enumerate(pages, start=1):
        width, height = page.size
        if not (1 <= width <= pixels.MAX_SIDE and 1 <= height <= pixels.MAX_SIDE):
            raise Refused(
                "unsupported_size", f"An image of {width} x {height} pixels is not supported."
            )
        if number > pixels.MAX_FRAMES:
            raise Refused("too_many_frames", f"The file has more than {pixels.MAX_FRAMES} pages.")
        size += width * height * 3
        if size > MAX_FILE_BYTES:
            raise Refused("zip_bomb", "The picture unpacks to more than 1 GiB.")
        values = _values(page)
        if first is None:
            first = values
        if (values.shape, values.dtype) != (first.shape, first.dtype):
            raise Refused("pages_differ", "The picture's pages differ in size or kind.")
        yield values


def _values(page: Image.Image) -> npt.NDArray[Any]:
    """(rows, columns) of 8 or 16 bits, or (rows, columns, 3), as a person would see it upright."""
    upright = ImageOps.exif_transpose(page)
    if upright.mode in ("F", "I"):
        values = np.asarray(upright)
        if upright.mode == "F" or values.min() < 0 or values.max() >= 2**16:
            raise Refused("unsupported_bits", "Pictures of more than 16 bits are not supported.")
        return values.astype(np.uint16)
    if upright.mode == "1":
        return np.asarray(upright.convert("L"))
    if upright.mode in _GREY:
        values = np.asarray(upright)
        return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if upright.mode == "LA":
        return np.asarray(upright.getchannel(0))
    colour = np.asarray(upright.convert("RGB"))
    # Many a grey picture was saved as colour: a third of the bytes shows the same, with a window.
    grey = (colour[..., 0] == colour[..., 1]).all() and (colour[..., 0] == colour[..., 2]).all()
    return np.ascontiguousarray(colour[..., 0]) if grey else colour
