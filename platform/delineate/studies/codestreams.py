"""Compressed frames without what cameras and programs write beside the pixels. Values only.

A JPEG has segments for applications and comments, in which names, places and whole previews stand;
JPEG 2000 has comments. What is needed to decode stays, byte by byte; what follows a frame's end
goes.
"""

from __future__ import annotations

import re
from typing import Final

from delineate.studies.archive import Refused

_JPEG_BEGINS: Final = b"\xff\xd8"  # JPEG-LS, too (ISO 10918-1 B, ISO 14495-1 C)
_JPEG_ENDS: Final = b"\xff\xd9"
_J2K_BEGINS: Final = b"\xff\x4f"  # ISO 15444-1 A
_J2K_ENDS: Final = b"\xff\xd9"
_SCAN, _FILL = 0xDA, 0xFF
_APPLICATIONS, _ADOBE, _COMMENT = range(0xE0, 0xF0), 0xEE, 0xFE
_ADOBE_BYTES: Final = 14  # says how colours were turned: its length, "Adobe", and seven more
_TILE_PART, _DATA, _J2K_COMMENT = 0x90, 0x93, 0x64
_TILE_PART_BYTES: Final = 12
# What ends the compressed data of a scan: within it no such bytes follow each other.
_MARKER: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")


def without_comments(frame: bytes) -> bytes:
    """A frame of the JPEG or JPEG 2000 family as it decodes, and no more; raises Refused."""
    if frame.startswith(_JPEG_BEGINS):
        return _jpeg(frame)
    if frame.startswith(_J2K_BEGINS):
        return _jpeg_2000(frame)
    raise _damaged()


def _jpeg(frame: bytes) -> bytes:
    kept, at = bytearray(_JPEG_BEGINS), len(_JPEG_BEGINS)
    while not frame.startswith(_JPEG_ENDS, at):
        marker = _marker(frame, at)
        if marker == _FILL:
            at += 1
            continue
        end = _segment_end(frame, at)
        segment = frame[at:end]
        is_adobe = marker == _ADOBE and len(segment) == _ADOBE_BYTES + 2
        if (marker not in _APPLICATIONS and marker != _COMMENT) or is_adobe:
            kept += segment
        at = end
        if marker == _SCAN:
            found = _MARKER.search(frame, at)
            if found is None:
                raise _damaged()
            kept += frame[at : found.start()]
            at = found.start()
    return bytes(kept + _JPEG_ENDS)


def _jpeg_2000(frame: bytes) -> bytes:
    kept, at = bytearray(_J2K_BEGINS), len(_J2K_BEGINS)
    header, at = _segments(frame, at, until=_TILE_PART)
    kept += header
    while not frame.startswith(_J2K_ENDS, at):
        if _marker(frame, at) != _TILE_PART or len(frame) < at + _TILE_PART_BYTES:
            raise _damaged()
        size = int.from_bytes(frame[at + 6 : at + 10], "big")
        end = at + size if size else frame.rfind(_J2K_ENDS)  # of the last one it may not be told
        header, data_at = _segments(frame, at + _TILE_PART_BYTES, until=_DATA)
        if not data_at <= end <= len(frame):
            raise _damaged()
        size = _TILE_PART_BYTES + len(header) + end - data_at
        kept += frame[at : at + 6] + size.to_bytes(4, "big")
        kept += frame[at + 10 : at + _TILE_PART_BYTES] + header + frame[data_at:end]
        at = end
    return bytes(kept + _J2K_ENDS)


def _segments(frame: bytes, at: int, *, until: int) -> tuple[bytes, int]:
    """The segments up to a marker but for comments, and where it stands."""
    kept = bytearray()
    while (marker := _marker(frame, at)) != until:
        end = _segment_end(frame, at)
        if marker != _J2K_COMMENT:
            kept += frame[at:end]
        at = end
    return bytes(kept), at


def _marker(frame: bytes, at: int) -> int:
    if len(frame) < at + 2 or frame[at] != 0xFF:
        raise _damaged()
    return frame[at + 1]


def _segment_end(frame: bytes, at: int) -> int:
    length = int.from_bytes(frame[at + 2 : at + 4], "big")
    if length < 2 or at + 2 + length > len(frame):
        raise _damaged()
    return at + 2 + length


def _damaged() -> Refused:
    return Refused("decode_failed", "The file's compressed pixels are damaged.")
