"""multipart/related (RFC 2046 5.1, RFC 2387), read and written in pieces. Values only.

Nothing is held but a piece of the stream and what could be the beginning of a boundary.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from delineate.errors import Invalid

PIECE_BYTES: Final = 256 * 1024
MAX_HEADER_BYTES: Final = 16 * 1024  # of one part
MAX_BOUNDARY_CHARACTERS: Final = 200  # RFC 2046 5.1.1 says 70, and Orthanc's have 73


class Malformed(Invalid):
    """Not what it says that it is."""

    status = 400
    code = "malformed"


@dataclass(frozen=True)
class Part:
    """A part; its content must be read before the next part is asked for."""

    headers: dict[str, str]  # by name in lower case
    content: Iterator[bytes]


def parts(read: Callable[[int], bytes], *, boundary: str) -> Iterator[Part]:
    """The parts of a body that ``read(size)`` gives piece by piece; raises Malformed."""
    if not 0 < len(boundary) <= MAX_BOUNDARY_CHARACTERS or not boundary.isascii():
        raise Malformed("The request's Content-Type names no boundary between its parts.")
    body = _Body(read, b"\r\n--" + boundary.encode())
    for _ in body.until_delimiter():
        pass  # what stands before the first part means nothing
    while not body.is_at_end():
        headers = body.headers()
        content = body.until_delimiter()
        yield Part(headers, content)
        for _ in content:
            pass  # what its reader has left


class _Body:
    """A body, and how far it has been read."""

    def __init__(self, read: Callable[[int], bytes], delimiter: bytes) -> None:
        self._read = read
        self._delimiter = delimiter
        # The first delimiter may be the very beginning: a line's end before it costs nothing.
        self._ahead = bytearray(b"\r\n")

    def until_delimiter(self) -> Iterator[bytes]:
        """What comes before the next delimiter, which is passed."""
        while (found := self._ahead.find(self._delimiter)) < 0:
            sure = len(self._ahead) - len(self._delimiter) + 1
            if sure > 0:
                yield bytes(self._ahead[:sure])
                del self._ahead[:sure]
            self._more()
        if found:
            yield bytes(self._ahead[:found])
        del self._ahead[: found + len(self._delimiter)]

    def is_at_end(self) -> bool:
        """Whether the delimiter that was just passed is the last; else its line is passed, too."""
        while len(self._ahead) < 2:
            self._more()
        if self._ahead.startswith(b"--"):
            return True
        line = self._take_until(b"\r\n")
        if line.strip(b" \t"):
            raise Malformed("The boundary stands within a part.")
        return False

    def headers(self) -> dict[str, str]:
        """A part's headers; those that are not understood mean nothing."""
        while len(self._ahead) < 2:
            self._more()
        if self._ahead.startswith(b"\r\n"):
            del self._ahead[:2]
            return {}
        lines = self._take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        named = (line.partition(":") for line in lines)
        return {name.strip().lower(): value.strip() for name, _, value in named}

    def _take_until(self, end: bytes) -> bytes:
        while (found := self._ahead.find(end, 0, MAX_HEADER_BYTES)) < 0:
            if len(self._ahead) >= MAX_HEADER_BYTES:
                raise Malformed("The headers of a part have no end.")
            self._more()
        taken = bytes(self._ahead[:found])
        del self._ahead[: found + len(end)]
        return taken

    def _more(self) -> None:
        piece = self._read(PIECE_BYTES)
        if not piece:
            raise Malformed("The request's body ends in the middle of a part, or has none.")
        self._ahead += piece


@dataclass(frozen=True)
class Written:
    """A multipart answer: its Content-Type, and its bytes piece by piece."""

    content_type: str
    pieces: Iterator[bytes]


def written(parts: Iterator[tuple[str, Iterator[bytes]]], *, media_type: str) -> Written:
    """An answer of at least one part, each (its Content-Type, its content).

    The content of the first begins at a multiple of four bytes, where some browsers' readers want
    values of four bytes to begin. It is asked for at once: what is wrong with it can be answered.
    """
    first_type, first = next(parts)
    boundary = secrets.token_hex(16)
    boundary += "0" * (-len(_head(boundary, first_type)) % 4)
    return Written(
        f'multipart/related; type="{media_type}"; boundary={boundary}',
        _pieces(chain([(first_type, first)], parts), boundary),
    )


def _head(boundary: str, content_type: str) -> bytes:
    return f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()


def _pieces(parts: Iterator[tuple[str, Iterator[bytes]]], boundary: str) -> Iterator[bytes]:
    line_end = b""
    for content_type, content in parts:
        yield line_end + _head(boundary, content_type)
        yield from content
        line_end = b"\r\n"
    yield line_end + f"--{boundary}--\r\n".encode()
