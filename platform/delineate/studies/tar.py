"""A tar's headers one after another, none of them believed; contents are not touched.

Reads ustar and pax (POSIX.1-2017, pax), GNU's long names and numbers, and what came before them.
Not by tarfile: that takes as many bytes for a long name as a header says, goes one call deeper for
each header that announces another, and keeps a kilobyte for every member. Values only.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import BinaryIO, Final

from delineate.studies.seekable import Seekable

BLOCK_BYTES: Final = 512
# Of what is said in front of a member: a path has at most 4,096 bytes, its owners and dates few.
MAX_SAID_BYTES: Final = 1024**2
MAX_SAID_TIMES: Final = 8
_SPARSE_BLOCKS: Final = 1_000
_NOTHING: Final = bytes(BLOCK_BYTES)
_CHECKSUM: Final = slice(148, 156)


class Damaged(Exception):
    """From here on the tar cannot be read."""


class Kind(Enum):
    """What a member is, as far as it matters here."""

    FILE = auto()
    FOLDER = auto()
    LINK = auto()
    SPARSE = auto()  # a file whose holes are left out
    SPECIAL = auto()  # a device, a pipe, a volume's label, …


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # contiguous, on systems that made a difference
    b"5": Kind.FOLDER,
    b"1": Kind.LINK,
    b"2": Kind.LINK,
    b"S": Kind.SPARSE,
}
_WITHOUT_CONTENT: Final = b"123456"


@dataclass(frozen=True, slots=True)
class Member:
    """A member and where its content lies."""

    name: str
    kind: Kind
    offset: int
    size: int


def is_header(block: bytes) -> bool:
    """Whether a block is a header: by its checksum, which every dialect has."""
    if len(block) != BLOCK_BYTES or not block[0]:
        return False
    try:
        said = _number(block[_CHECKSUM])
    except Damaged:
        return False
    return said == sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")


def members(file: BinaryIO) -> Iterator[Member]:
    """Every member, folders and refused kinds too; raises Damaged where the rest is lost."""
    end = file.seek(0, io.SEEK_END)
    at = 0
    said: dict[bytes, bytes] = {}  # in front of the next member, about it
    times = 0
    while (block := _read(file, at, BLOCK_BYTES)) not in (b"", _NOTHING):
        if not is_header(block):
            raise Damaged
        kind, size = block[156:157], _number(block[124:136])
        at += BLOCK_BYTES
        if kind in (b"x", b"g", b"L", b"K"):
            times += 1
            if size > MAX_SAID_BYTES or times > MAX_SAID_TIMES or at + size > end:
                raise Damaged
            said |= _said(kind, _read(file, at, size))
            at += _padded(size)
            continue
        if kind == b"S" and block[482]:
            at = _behind_sparse_map(file, at)
        member = _member(block, said, offset=at, size=size)
        if member.offset + member.size > end:
            raise Damaged
        yield member
        at += _padded(member.size)
        said, times = {}, 0
    if said:
        raise Damaged


def content_of(file: BinaryIO, member: Member) -> BinaryIO:
    """A member's content as a file of its own, without copying it."""
    return io.BufferedReader(_Window(file, member.offset, member.size))


class _Window(Seekable):
    """A part of another file; whoever uses both moves the other's position each time."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__(size)
        self._file, self._offset = file, offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what callers give
        wanted = max(0, min(len(buffer), self.size - self.at))
        data = _read(self._file, self._offset + self.at, wanted) if wanted else b""
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def _member(block: bytes, said: dict[bytes, bytes], *, offset: int, size: int) -> Member:
    name = said.get(b"path", _name(block))
    kind = _KINDS.get(block[156:157], Kind.SPECIAL)
    if b"size" in said:
        if not said[b"size"].isdigit() or len(said[b"size"]) > 20:
            raise Damaged
        size = int(said[b"size"])
    if any(key.startswith(b"GNU.sparse.") for key in said):
        kind = Kind.SPARSE
    if kind is Kind.FILE and name.endswith(b"/"):
        kind = Kind.FOLDER  # before there was a kind for it
    if block[156:157] in _WITHOUT_CONTENT:
        size = 0
    return Member(name.decode(errors="replace"), kind, offset, size)


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _said(kind: bytes, data: bytes) -> dict[bytes, bytes]:
    """What a header in front of a member says of it; what holds for all of them says nothing."""
    match kind:
        case b"x":
            return dict(_records(data))
        case b"L":
            return {b"path": _text(data)}
        case _:
            return {}


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A pax header's ``length keyword=value\\n``, the length being that of all of it."""
    at = 0
    while at < len(data) and data[at]:
        digits = data[at : at + 8].partition(b" ")[0]
        if not digits.isdigit():
            raise Damaged
        length = int(digits)
        record = data[at : at + length]
        keyword, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or not equals or not record.endswith(b"\n"):
            raise Damaged
        yield keyword, value
        at += length


def _behind_sparse_map(file: BinaryIO, at: int) -> int:
    for _ in range(_SPARSE_BLOCKS):
        block = _read(file, at, BLOCK_BYTES)
        at += BLOCK_BYTES
        if len(block) == BLOCK_BYTES and not block[504]:
            return at
    raise Damaged


def _number(field: bytes) -> int:
    """Octal text, or, where it did not fit, GNU's: the first bit set, the others big-endian."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = _text(field).strip(b" ")
    if digits.strip(b"01234567"):
        raise Damaged
    return int(digits or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
