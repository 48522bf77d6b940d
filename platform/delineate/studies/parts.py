"""A blob that came in parts, each an object of its own: where they lie, and all as one file.

An object store has no appending; and what is an object is durable. A part is named for its offset,
so that one whose writer died before anybody took note of it is written over.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

from delineate import storage
from delineate.studies.seekable import Seekable


def part_key(blob_key: str, *, offset: int) -> str:
    """Object key of the part of a blob that begins at ``offset``."""
    return f"{blob_key}.{offset}"


def open_blob(key: str, *, part_sizes: Sequence[int]) -> BinaryIO:
    """A seekable file of a blob, which is one object where it has no parts; NotFound."""
    if not part_sizes:
        return storage.open_for_reading(key)
    return io.BufferedReader(_Parts(key, part_sizes))


class _Parts(Seekable):
    """The parts one after another; the one that was read last stays open."""

    def __init__(self, key: str, sizes: Sequence[int]) -> None:
        self._key = key
        super().__init__(sum(sizes))
        self._starts = [0, *accumulate(sizes)]  # and where the last one ends
        self._open: tuple[int, BinaryIO] | None = None

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what callers give
        if self.at >= self.size:
            return 0
        number = bisect_right(self._starts, self.at) - 1
        wanted = min(len(buffer), self._starts[number + 1] - self.at)
        part = self._part(number)
        part.seek(self.at - self._starts[number])
        data = part.read(wanted)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _part(self, number: int) -> BinaryIO:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            key = part_key(self._key, offset=self._starts[number])
            self._open = (number, storage.open_for_reading(key))
        return self._open[1]
