"""Compressed streams, unpacked piece by piece: none is larger than PIECE_BYTES, whatever they say.

Values only.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Final

PIECE_BYTES: Final = 256 * 1024
# xz's own strongest setting wants 65 MiB; a stream may ask for 4 GiB.
MAX_XZ_MEMORY_BYTES: Final = 128 * 1024**2

# What reading them raises for what is damaged.
DAMAGED: Final = (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


def pieces(file: BinaryIO) -> Iterator[bytes] | None:
    """What a gzip, bzip2 or xz file unpacks to, from its beginning; None where it is none."""
    file.seek(0)
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return iter(partial(gzip.GzipFile(fileobj=file).read, PIECE_BYTES), b"")
    if magic.startswith(b"BZh"):
        return _streams(file, bz2.BZ2Decompressor)
    if magic == b"\xfd7zXZ\0":
        return _streams(
            file, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY_BYTES)
        )
    return None


def _streams(
    file: BinaryIO, new: type[bz2.BZ2Decompressor] | partial[lzma.LZMADecompressor]
) -> Iterator[bytes]:
    """Of streams one after another; the module's own files bound neither memory nor pieces."""
    decompressor = new()
    data = file.read(PIECE_BYTES)
    while data:
        if piece := decompressor.decompress(data, PIECE_BYTES):
            yield piece
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", PIECE_BYTES)
        if decompressor.eof:
            data = decompressor.unused_data.lstrip(b"\0") or file.read(PIECE_BYTES).lstrip(b"\0")
            decompressor = new()
        elif not (data := file.read(PIECE_BYTES)):
            raise EOFError("ends in the middle")
