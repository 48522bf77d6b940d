"""An upload's blobs as files: zips are opened, also within zips. Everything else is one file.

Nothing here trusts what a zip says: members' names are never used as paths, sizes are counted while
reading, and only an inner zip is written to disk, to a file without a name, while it is read. A
member that is refused does not disturb the others. Values only.
"""

from __future__ import annotations

import hashlib
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Final, Self

MAX_FILES: Final = 20_000  # a CT angiography has 4,000; a disc of a patient's history 15,000
MAX_FILE_BYTES: Final = 1024**3  # a multi-frame mammography tomosynthesis reaches 500 MB
MAX_TOTAL_BYTES: Final = 32 * 1024**3
MAX_DEPTH: Final = 3  # a disc in an archive in a download; deeper is somebody's joke
MAX_RATIO: Final = 200  # DICOM deflates 2- to 20-fold; an empty black image up to 150-fold
RATIO_FROM_BYTES: Final = 10 * 1024**2  # below this a high ratio does no harm

# What zipfile and its decompressors raise for what is damaged or not supported.
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # also NotImplementedError
    ValueError,  # also UnicodeDecodeError, of a name
)

# What operating systems leave in folders.
_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")


class Refused(Exception):
    """A file that does not go in: a code and a sentence for the upload's report."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Entry:
    """A file of an upload. ``folder`` is a digest of its top folder's name, empty without one.

    ``name``: its path as its sender sees it, a zip counting as what is in it; empty where it is not
    known. It may identify people: it is for the sender's own mapping, and never kept or told.
    """

    number: int  # 1, 2, 3, … in the upload
    blob: int
    path: tuple[int, ...]  # position in the zip's directory, then in the zip that is there, …
    folder: str = ""
    refusal: Refused | None = None
    is_litter: bool = False
    name: str = field(default="", repr=False)


@dataclass(frozen=True)
class _Member:
    """A file and what is known of it before it is read."""

    path: tuple[int, ...] = ()
    folder: str = ""
    refusal: Refused | None = None
    is_litter: bool = False
    name: str = field(default="", repr=False)


class Archive:
    """The files of an upload, listed once and read one at a time."""

    def __init__(
        self, blobs: Sequence[Callable[[], BinaryIO]], *, names: Mapping[int, str] | None = None
    ) -> None:
        """``names``: of blobs, as far as their sender gave them, by number."""
        self._blobs = blobs
        self._names = names or {}
        self._zips: dict[int, zipfile.ZipFile] = {}
        self._inner: tuple[int, tuple[int, ...], zipfile.ZipFile] | None = None
        self._read_bytes = 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._leave_inner()
        self._open.close()

    def entries(self) -> Iterator[Entry]:
        """Every file with its fate so far; numbers are stable for equal blobs."""
        number = 0
        for blob in range(len(self._blobs)):
            for member in self._members(blob):
                number += 1
                refusal = member.refusal
                if number > MAX_FILES:
                    refusal = Refused(
                        "too_many_files", f"The upload has more than {MAX_FILES} files."
                    )
                yield Entry(
                    number,
                    blob,
                    member.path,
                    member.folder,
                    refusal,
                    member.is_litter,
                    member.name,
                )
                if number > MAX_FILES:
                    return

    def read(self, entry: Entry) -> bytes:
        """A file's bytes; raises Refused."""
        assert entry.refusal is None, "a refused file is not read"
        if not entry.path:
            with self._blobs[entry.blob]() as file:
                data = file.read(MAX_FILE_BYTES + 1)
        else:
            archive = self._zip_at(entry.blob, entry.path[:-1])
            data = _read_member(archive, archive.infolist()[entry.path[-1]])
        if len(data) > MAX_FILE_BYTES:
            raise Refused("file_too_large", "The file is larger than 1 GiB.")
        self._count(len(data))
        return data

    def _members(self, blob: int) -> Iterator[_Member]:
        file = self._blobs[blob]()
        magic = file.read(4)
        file.seek(0)
        if magic not in _ZIP_MAGIC:
            file.close()
            yield _Member(name=self._names.get(blob, ""))
            return
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGED:
            file.close()
            yield _Member(refusal=_broken_zip())
            return
        self._open.callback(file.close)
        self._zips[blob] = self._open.enter_context(archive)
        yield from self._members_of(
            archive, blob, (), folder=None, around=_around(self._names.get(blob, ""))
        )

    def _members_of(
        self,
        archive: zipfile.ZipFile,
        blob: int,
        path: tuple[int, ...],
        *,
        folder: str | None,
        around: str,
    ) -> Iterator[_Member]:
        """Depth first; what is in an inner zip belongs to the folder that the zip is in."""
        for position, info in enumerate(archive.infolist()):
            if info.is_dir():
                continue
            here = (*path, position)
            name = around + info.filename.replace("\\", "/")
            own = _folder(info.filename) if folder is None else folder
            refusal = _refusal(info)
            litter = info.filename.startswith(_LITTER[0]) or info.filename.endswith(_LITTER)
            if refusal is not None or litter or not info.filename.lower().endswith(".zip"):
                yield _Member(here, own, refusal, litter, name)
                continue
            try:
                if len(here) >= MAX_DEPTH:
                    raise Refused(
                        "nested_too_deep", f"Zips are opened {MAX_DEPTH} deep, and this is deeper."
                    )
                inner = self._zip_at(blob, here)
            except Refused as refused:
                yield _Member(here, own, refused)
                continue
            # Listed before any other is opened, which would close this one.
            members = self._members_of(inner, blob, here, folder=own, around=_around(name))
            yield from list(members)

    def _zip_at(self, blob: int, path: tuple[int, ...]) -> zipfile.ZipFile:
        """The zip at a path; of inner ones the last that was asked for stays open."""
        if not path:
            return self._zips[blob]
        if self._inner is not None and self._inner[:2] == (blob, path):
            return self._inner[2]
        around = self._zip_at(blob, path[:-1])
        data = _read_member(around, around.infolist()[path[-1]])
        self._count(len(data))
        self._leave_inner()
        file = TemporaryFile()  # noqa: SIM115 (it stays open as long as the zip)
        file.write(data)
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGED as error:
            file.close()
            raise _broken_zip() from error
        self._inner = (blob, path, archive)
        return archive

    def _leave_inner(self) -> None:
        if self._inner is not None:
            archive = self._inner[2]
            file = archive.fp
            archive.close()
            if file is not None:
                file.close()
            self._inner = None

    def _count(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes > 2 * MAX_TOTAL_BYTES:  # ingest reads every file twice
            raise Refused("upload_too_large", "The upload unpacks to more than 32 GiB.")


def most_unpacked(size: int) -> int:
    """Bytes that a compressed file of so many may unpack to."""
    return min(MAX_FILE_BYTES, max(RATIO_FROM_BYTES, MAX_RATIO * size))


def bomb() -> Refused:
    """Of what unpacks to more."""
    return Refused("zip_bomb", f"The file unpacks to more than {MAX_RATIO} times its size.")


def _broken_zip() -> Refused:
    return Refused("broken_zip", "The zip file is damaged and cannot be opened.")


def _around(name: str) -> str:
    """What the names of a zip's members begin with: the folder that the zip lies in."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _folder(name: str) -> str:
    top, slash, _ = name.replace("\\", "/").partition("/")
    return hashlib.sha256(top.encode(errors="replace")).hexdigest() if slash else ""


def _refusal(info: zipfile.ZipInfo) -> Refused | None:
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        return Refused("unsafe_path", "The file's path in the zip leads out of it.")
    if stat.S_ISLNK(info.external_attr >> 16):
        return Refused("link", "The file is a link, not an image.")
    if info.flag_bits & 0x1:
        return Refused("encrypted", "The file is encrypted; upload a zip without a password.")
    if info.file_size > RATIO_FROM_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        return bomb()
    if info.file_size > MAX_FILE_BYTES:
        return Refused("file_too_large", "The file is larger than 1 GiB.")
    return None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as member:
            # Read by what comes, not by what the directory promises.
            data = member.read(info.file_size + 1)
    except _DAMAGED as error:
        raise Refused("broken_zip", "The file is damaged inside the zip.") from error
    if len(data) != info.file_size:
        raise Refused("broken_zip", "The file's size in the zip is not what it says.")
    return data
