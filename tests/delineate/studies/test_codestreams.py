"""Compressed frames lose what is written beside their pixels, and decode as before."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from delineate.studies.archive import Refused
from delineate.studies.codestreams import without_comments
from tests.delineate.studies.files import image, reread

NAME = b"Anna Kowalska"
VALUES = np.random.default_rng(3).integers(0, 255, (24, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"subsampling": 2}], ids=str)
def test_a_jpeg_loses_comments_applications_and_what_follows_it(more):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[315] = NAME.decode()
    Image.fromarray(VALUES).save(buffer, "JPEG", comment=NAME, exif=exif, xmp=NAME, **more)
    frame = buffer.getvalue()
    assert frame.count(NAME) >= 3
    cleaned = without_comments(frame + NAME)
    assert NAME not in cleaned
    assert _pixels(cleaned) == _pixels(frame)


def test_colours_that_were_turned_are_still_told():
    buffer = io.BytesIO()
    Image.fromarray(VALUES).convert("CMYK").save(buffer, "JPEG")
    assert b"Adobe" in buffer.getvalue()
    assert _pixels(without_comments(buffer.getvalue())) == _pixels(buffer.getvalue())


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_what_has_no_comment_stays_as_it_is_but_for_what_follows_it(syntax):
    frame = _compressed(syntax)
    assert without_comments(without_comments(frame) + NAME) == without_comments(frame)
    if syntax == JPEGLSLossless:
        assert without_comments(frame) == frame.rstrip(b"\0")


@pytest.mark.parametrize("tile_part", [False, True], ids=["main header", "tile-part"])
def test_a_jpeg_2000_loses_comments_wherever_they_may_stand(tile_part):
    frame = without_comments(_compressed(JPEG2000Lossless))
    comment = b"\xff\x64" + (len(NAME) + 4).to_bytes(2, "big") + b"\0\1" + NAME
    begins = frame.index(b"\xff\x90")
    if tile_part:
        size = int.from_bytes(frame[begins + 6 : begins + 10], "big")
        told = (size + len(comment)).to_bytes(4, "big") if size else bytes(4)
        head = frame[begins : begins + 6] + told + frame[begins + 10 : begins + 12]
        commented = frame[:begins] + head + comment + frame[begins + 12 :]
    else:
        commented = frame[:begins] + comment + frame[begins:]
    assert without_comments(commented) == frame


@pytest.mark.parametrize(
    "frame",
    [
        *(b"", b"no image", b"\xff\xd8", b"\xff\xd8\xff\xfe\x00", b"\xff\xd8\xff\xda\x00\x02abc"),
        *(b"\xff\x4f", b"\xff\x4f\xff\x90\x00\x0a", b"\xff\x4f\xff\x64\x00\x01"),
    ],
)
def test_damaged_frames_are_refused(frame):
    with pytest.raises(Refused) as refused:
        without_comments(frame)
    assert refused.value.code == "decode_failed"


def _compressed(syntax: str) -> bytes:
    file = reread(image(pixels=np.tile(VALUES[..., 0], (3, 3)).astype(np.uint16)))
    file.compress(syntax)
    return next(generate_frames(file.PixelData, number_of_frames=1))


def _pixels(frame: bytes) -> bytes:
    return Image.open(io.BytesIO(frame)).tobytes()
