"""What a file that is part of something else, or made of parts, shares with every other: a place.

Values only.
"""

from __future__ import annotations

import io


class Seekable(io.RawIOBase):
    """A readable file of ``size`` bytes; whoever reads from it moves ``at``."""

    def __init__(self, size: int) -> None:
        self.size, self.at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError("before the beginning")
        self.at = start + offset
        return self.at
