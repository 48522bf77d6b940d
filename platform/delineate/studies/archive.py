"""An upload's blobs as files: zips and tars are opened, also within each other.

Everything else is one file. A tar may be compressed as a whole. Nothing here trusts what an archive
says: members' names are never used as paths, sizes are counted while reading, how much a directory
takes in memory is bounded before it is read, and only an archive that is compressed is written to
disk, to a file without a name, while it is read. A member that is refused does not disturb the
others. Values only.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from delineate.studies import compression, tar

MAX_FILES: Final = 100_000  # a disc of a patient's history has 15,000; a collection several of them
MAX_HEADERS: Final = 2 * MAX_FILES  # of one archive, where folders have some too
MAX_DIRECTORY_BYTES: Final = 64 * 1024**2  # of a zip: 300 for each header
MAX_FILE_BYTES: Final = 1024**3  # a multi-frame mammography tomosynthesis reaches 500 MB
MAX_TOTAL_BYTES: Final = 32 * 1024**3
# A disc in an archive in a download in what the browser made of all that was dropped at once;
# deeper is somebody's joke.
MAX_DEPTH: Final = 4
MAX_RATIO: Final = 200  # DICOM deflates 2- to 20-fold; an empty black image up to 150-fold
RATIO_FROM_BYTES: Final = 10 * 1024**2  # below this a high ratio does no harm

# What zipfile and its decompressors raise for what is damaged or not supported.
_DAMAGED: Final = (
    zipfile.BadZipFile,
    *compression.DAMAGED,  # ValueError also as UnicodeDecodeError, of a name
    RuntimeError,  # also NotImplementedError
    struct.error,
)

# What operating systems leave in folders.
_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_SPLIT_ZIP_MAGIC: Final = b"PK\x07\x08"
_ARCHIVES: Final = (
    *(".zip", ".tar"),
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
)
# APPNOTE 4.3: the directory's headers and what stands behind them.
_HEADER_BYTES: Final = 46
_LENGTHS: Final = struct.Struct("<HHH")  # of name, extra field and comment
_LENGTHS_AT: Final = 28
_END: Final = struct.Struct("<4sHHHHLLH")
_END_MAGIC: Final = b"PK\x05\x06"
_END64: Final = struct.Struct("<4sQHHLLQQQQ")
_END64_MAGIC: Final = b"PK\x06\x06"
_LOCATOR_BYTES: Final = 20
_TAIL_BYTES: Final = 65_535 + _END.size + _LOCATOR_BYTES + _END64.size
_LEAST_HEADER_BYTES: Final = 30  # in front of a file; its name follows
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000  # also strongly, also the directory
_PIECE_BYTES: Final = compression.PIECE_BYTES


class Refused(Exception):
    """A file that does not go in: a code and a sentence for the upload's report."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an upload. ``folder`` is a digest of its top folder's name, empty without one.

    ``name``: its path as its sender sees it, an archive counting as what is in it; empty where it
    is not known. It may identify people: it is for the sender's own mapping, never kept or told.
    """

    number: int  # 1, 2, 3, … in the upload
    blob: int
    path: tuple[int, ...]  # position in the archive, then in the archive that is there, …
    folder: str = ""
    refusal: Refused | None = None
    is_litter: bool = False
    name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file and what is known of it before it is read."""

    position: int = 0
    folder: str = ""
    refusal: Refused | None = None
    is_litter: bool = False
    is_archive: bool = False
    name: str = field(default="", repr=False)


class _Directory(Protocol):
    """An archive that is open: its files, and each one's content by its position."""

    files: list[_Member]

    def read(self, position: int) -> bytes:
        """A file's bytes; raises Refused."""

    def opened(self, position: int) -> BinaryIO:
        """A file that is an archive itself; raises Refused."""

    def close(self) -> None:
        """Nothing more is read."""


class Archive:
    """The files of an upload, listed once and read one at a time."""

    def __init__(
        self, blobs: Sequence[Callable[[], BinaryIO]], *, names: Mapping[int, str] | None = None
    ) -> None:
        """``names``: of blobs, as far as their sender gave them, by number."""
        self._blobs = blobs
        self._names = names or {}
        self._outer: dict[int, _Directory] = {}
        # What is open within one of them: an archive, then one of its own, …
        self._inner: list[tuple[int, tuple[int, ...], _Directory]] = []
        # What has been counted is not counted each time that it is opened again.
        self._counted: set[tuple[int, tuple[int, ...]]] = set()
        self._unpacked: set[tuple[int, tuple[int, ...]]] = set()
        self._read_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._leave_all_but(0, ())
        for directory in self._outer.values():
            directory.close()

    def entries(self) -> Iterator[Entry]:
        """Every file with its fate so far; numbers are stable for equal blobs."""
        number = 0
        for blob in range(len(self._blobs)):
            for path, folder, member in self._members(blob):
                number += 1
                refusal = _too_many_files() if number > MAX_FILES else member.refusal
                yield Entry(number, blob, path, folder, refusal, member.is_litter, member.name)
                if number > MAX_FILES:
                    return

    def read(self, entry: Entry) -> bytes:
        """A file's bytes; raises Refused."""
        assert entry.refusal is None, "a refused file is not read"
        if entry.path:
            data = self._directory(entry.blob, entry.path[:-1]).read(entry.path[-1])
        else:
            with self._blobs[entry.blob]() as file:
                data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _too_large()
        self._count(len(data))
        return data

    def _members(self, blob: int) -> Iterator[tuple[tuple[int, ...], str, _Member]]:
        file, name = self._blobs[blob](), self._names.get(blob, "")
        try:
            directory = self._open(file, blob, ())
        except Refused as refused:
            file.close()
            yield (), "", _Member(refusal=refused)
            return
        if directory is None:
            file.close()
            yield (), "", _Member(name=name)
            return
        self._outer[blob] = directory
        yield from self._members_of(directory, blob, (), folder=None, around=_around(name))

    def _members_of(
        self,
        directory: _Directory,
        blob: int,
        path: tuple[int, ...],
        *,
        folder: str | None,
        around: str,
    ) -> Iterator[tuple[tuple[int, ...], str, _Member]]:
        """Depth first; what is in an inner archive belongs to the folder that this one is in."""
        for bare in directory.files:
            member = replace(bare, name=around + bare.name)
            here = (*path, member.position)
            own = member.folder if folder is None else folder
            if member.refusal is not None or member.is_litter or not member.is_archive:
                yield here, own, member
                continue
            try:
                if len(here) >= MAX_DEPTH:
                    raise Refused(
                        "nested_too_deep",
                        f"Archives are opened {MAX_DEPTH} deep, and this is deeper.",
                    )
                inner = self._directory(blob, here)
            except Refused as refused:
                yield here, own, _Member(refusal=refused)
                continue
            yield from self._members_of(inner, blob, here, folder=own, around=_around(member.name))

    def _directory(self, blob: int, path: tuple[int, ...]) -> _Directory:
        """The archive at a path; on the way to the last that was asked for they stay open."""
        self._leave_all_but(blob, path)
        here = self._inner[-1][2] if self._inner else self._outer[blob]
        for depth in range(len(self._inner), len(path)):
            file = here.opened(path[depth])
            try:
                if (blob, path[: depth + 1]) not in self._counted:
                    self._counted.add((blob, path[: depth + 1]))
                    self._count(_size(file))
                inner = self._open(file, blob, path[: depth + 1])
                if inner is None:
                    raise Refused("no_archive", "The file is not the archive that its name says.")
            except Refused:
                file.close()
                raise
            self._inner.append((blob, path[: depth + 1], inner))
            here = inner
        return here

    def _leave_all_but(self, blob: int, path: tuple[int, ...]) -> None:
        while self._inner and self._inner[-1][:2] != (blob, path[: len(self._inner[-1][1])]):
            self._inner.pop()[2].close()

    def _open(self, file: BinaryIO, blob: int, path: tuple[int, ...]) -> _Directory | None:
        """A file as an archive; None where it is none. Raises Refused."""
        head = file.read(tar.BLOCK_BYTES)
        if head[:4] == _SPLIT_ZIP_MAGIC:
            raise _split()
        if head[:4] in _ZIP_MAGIC:
            return _Zip(file)
        if tar.is_header(head):
            return _Tar(file)
        return self._open_compressed(file, blob, path)

    def _open_compressed(
        self, file: BinaryIO, blob: int, path: tuple[int, ...]
    ) -> _Directory | None:
        """A tar that is compressed as a whole; volumes too are compressed, and are files."""
        pieces = compression.pieces(file)
        if pieces is None:
            return None
        try:
            first = next(pieces, b"")
        except _DAMAGED:
            return None
        if not tar.is_header(first[: tar.BLOCK_BYTES]):
            return None
        most = max(RATIO_FROM_BYTES, MAX_RATIO * _size(file))
        unpacked = TemporaryFile()  # noqa: SIM115 (it stays open as long as the tar)
        # After that it was at the end, where the stream does not go on.
        pieces = compression.pieces(file)
        assert pieces is not None, "it was compressed a moment ago"
        is_new = (blob, path) not in self._unpacked
        self._unpacked.add((blob, path))
        is_whole, size = True, 0
        try:
            while (piece := _next(pieces)) != b"":
                if piece is None:
                    is_whole = False
                    break
                size += len(piece)
                if size > most:
                    raise bomb()
                if is_new:
                    self._count(len(piece))
                unpacked.write(piece)
        except BaseException:
            unpacked.close()
            raise
        file.close()
        return _Tar(unpacked, is_whole=is_whole)

    def _count(self, size: int) -> None:
        self._read_bytes += size
        # An archive within another counts, and so do its files.
        if self._read_bytes > 2 * MAX_TOTAL_BYTES:
            raise Refused("upload_too_large", "The upload unpacks to more than 32 GiB.")


class _Zip:
    """A zip's files."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            _weigh_directory(file)
            self._zip = zipfile.ZipFile(file)
        except _DAMAGED as error:
            raise _broken("zip") from error
        self._file = file  # which zipfile leaves open
        infos = self._zip.infolist()
        overlapping = _overlapping(infos)
        self.files = [
            _member(
                position,
                info.filename,
                _overlap() if position in overlapping else _refusal_in_zip(info),
            )
            for position, info in enumerate(infos)
            if not info.is_dir()
        ]

    def read(self, position: int) -> bytes:
        """A file's bytes; raises Refused."""
        info = self._zip.infolist()[position]
        if info.file_size > MAX_FILE_BYTES:
            raise _too_large()
        return b"".join(self._pieces(info))

    def opened(self, position: int) -> BinaryIO:
        """A file that is an archive itself, on disk; raises Refused."""
        file = TemporaryFile()  # noqa: SIM115 (closed by whoever reads the archive)
        try:
            for piece in self._pieces(self._zip.infolist()[position]):
                file.write(piece)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def close(self) -> None:
        """Nothing more is read."""
        self._zip.close()
        self._file.close()

    def _pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Read by what comes, not by what the directory promises."""
        size = 0
        try:
            with self._zip.open(info) as member:
                while piece := member.read(min(_PIECE_BYTES, info.file_size + 1 - size)):
                    size += len(piece)
                    if size > info.file_size:
                        break
                    yield piece
        except _DAMAGED as error:
            raise Refused("broken_zip", "The file is damaged inside the zip.") from error
        if size != info.file_size:
            raise Refused("broken_zip", "The file's size in the zip is not what it says.")


class _Tar:
    """A tar's files. What is behind a damaged place is lost, and that is told as one more file."""

    def __init__(self, file: BinaryIO, *, is_whole: bool = True) -> None:
        self._file = file
        self._where: list[tar.Member] = []
        self.files: list[_Member] = []
        for refusal in self._listed():
            is_whole = True  # or it is told already that it is not
            self.files.append(_Member(len(self._where), refusal=refusal))
        if not is_whole:
            self.files.append(_Member(len(self._where), refusal=_broken("tar")))

    def _listed(self) -> Iterator[Refused]:
        """Lists what can be listed; yields why it is not more."""
        try:
            for number, member in enumerate(tar.members(self._file), start=1):
                if number > MAX_HEADERS:
                    yield _too_many_files()
                    return
                if member.kind is not tar.Kind.FOLDER:
                    self.files.append(
                        _member(len(self._where), member.name, _refusal_in_tar(member))
                    )
                    self._where.append(replace(member, name=""))
        except tar.Damaged:
            yield _broken("tar")

    def read(self, position: int) -> bytes:
        """A file's bytes."""
        with tar.content_of(self._file, self._where[position]) as file:
            return file.read(MAX_FILE_BYTES + 1)

    def opened(self, position: int) -> BinaryIO:
        """A file that is an archive itself, where it lies."""
        return tar.content_of(self._file, self._where[position])

    def close(self) -> None:
        """Nothing more is read."""
        self._file.close()


def most_unpacked(size: int) -> int:
    """Bytes that a compressed file of so many may unpack to."""
    return min(MAX_FILE_BYTES, max(RATIO_FROM_BYTES, MAX_RATIO * size))


def bomb() -> Refused:
    """Of what unpacks to more."""
    return Refused("zip_bomb", f"The file unpacks to more than {MAX_RATIO} times its size.")


def _too_large() -> Refused:
    return Refused("file_too_large", "The file is larger than 1 GiB.")


def _too_many_files() -> Refused:
    return Refused("too_many_files", f"The upload has more than {MAX_FILES} files.")


def _broken(kind: str) -> Refused:
    return Refused(f"broken_{kind}", f"The {kind} file is damaged, and not all of it can be read.")


def _split() -> Refused:
    return Refused("split_archive", "The file is one of several parts; put them together first.")


def _size(file: BinaryIO) -> int:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size


def _next(pieces: Iterator[bytes]) -> bytes | None:
    """The next piece, b"" at the end, None where the stream is damaged."""
    try:
        return next(pieces, b"")
    except _DAMAGED:
        return None


def _member(position: int, name: str, refusal: Refused | None) -> _Member:
    lower = name.lower()
    return _Member(
        position,
        _folder(name),
        _unsafe_path(name) or refusal,
        is_litter=name.startswith(_LITTER[0]) or name.endswith(_LITTER),
        is_archive=lower.endswith(_ARCHIVES),
        name=name.replace("\\", "/"),
    )


def _around(name: str) -> str:
    """What the names of an archive's members begin with: the folder that it lies in."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _folder(name: str) -> str:
    top, slash, _ = name.replace("\\", "/").partition("/")
    return _digest(top) if slash else ""


@functools.lru_cache(maxsize=1024)  # the files of a folder share one
def _digest(folder: str) -> str:
    return hashlib.sha256(folder.encode(errors="replace")).hexdigest()


def _unsafe_path(name: str) -> Refused | None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        return Refused("unsafe_path", "The file's path in the archive leads out of it.")
    return None


def _most(name: str) -> int:
    """An archive is not read into memory as a file is."""
    return MAX_TOTAL_BYTES if name.lower().endswith(_ARCHIVES) else MAX_FILE_BYTES


def _refusal_in_tar(member: tar.Member) -> Refused | None:
    if member.kind is tar.Kind.LINK:
        return _link()
    if member.kind is tar.Kind.SPARSE:
        return Refused("sparse", "The file is stored with holes; make the tar without --sparse.")
    if member.kind is tar.Kind.SPECIAL:
        return _special()
    return _too_large() if member.size > _most(member.name) else None


def _refusal_in_zip(info: zipfile.ZipInfo) -> Refused | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return _link()
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return _special()
    if info.flag_bits & _ENCRYPTED:
        return Refused("encrypted", "The file is encrypted; upload a zip without a password.")
    if info.file_size > RATIO_FROM_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        return bomb()
    return _too_large() if info.file_size > _most(info.filename) else None


def _overlap() -> Refused:
    return Refused("zip_bomb", "The file lies in the zip where another one lies, as in a zip bomb.")


def _link() -> Refused:
    return Refused("link", "The file is a link, not an image.")


def _special() -> Refused:
    return Refused("special_file", "Not a file with a content, but a device or something alike.")


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Positions of files that lie where another does: a bomb whose every file is small."""
    found: set[int] = set()
    places = sorted(
        (info.header_offset, info.compress_size, position) for position, info in enumerate(infos)
    )
    for (offset, size, position), (following, _, _) in itertools.pairwise(places):
        if offset + _LEAST_HEADER_BYTES + size > following:
            found.add(position)
    return found


def _weigh_directory(file: BinaryIO) -> None:
    """Refuse a zip whose directory would fill the memory: zipfile reads all that there is of it.

    It is found where zipfile finds it, and counted as zipfile counts: by what it holds and not by
    what is said of it. Raises Refused, struct.error.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    at = len(tail) - _END.size
    if not (tail[at : at + 4] == _END_MAGIC and tail[-2:] == b"\0\0"):
        at = tail.rfind(_END_MAGIC)
    if at < 0:
        raise _broken("zip")
    _, disk, disk_of_directory, _, _, directory_bytes, _, _ = _END.unpack_from(tail, at)
    end = size - len(tail) + at
    if {disk, disk_of_directory} - {0, 0xFFFF}:
        raise _split()
    at64 = at - _LOCATOR_BYTES - _END64.size
    if at64 >= 0 and tail[at64 : at64 + 4] == _END64_MAGIC:
        *_, disk, disk_of_directory, _, _, directory_bytes, _ = _END64.unpack_from(tail, at64)
        end -= _LOCATOR_BYTES + _END64.size
        if disk or disk_of_directory:
            raise _split()
    if directory_bytes > end:
        raise _broken("zip")
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise _too_many_files()
    file.seek(end - directory_bytes)
    directory = file.read(directory_bytes)
    at, headers = 0, 0
    while at < directory_bytes:
        at += _HEADER_BYTES + sum(_LENGTHS.unpack_from(directory, at + _LENGTHS_AT))
        headers += 1
        if headers > MAX_HEADERS:
            raise _too_many_files()
