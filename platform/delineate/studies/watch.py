"""Folders whose files are taken in: what is put there is uploaded, moved aside, and reported on.

    incoming/
    ├── anything            a folder or a zip is an upload; loose files that come together are one
    ├── .taken/UPLOAD/…     uploaded, and being ingested
    ├── done/…              ingested, each with its report beside it
    └── refused/…           the same, where at least one file was refused

What has not changed for a while is taken; looked at again and again, because network shares send no
notice. A file leaves its place only after its upload is owed, so a kill loses nothing: what is
taken a second time is recognised by its content. Links are not followed, on no part of a path.
Names of files may be a patient's: they stand in the reports, which lie beside the files, and in no
log.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final
from uuid import UUID

import django.db

from delineate import storage
from delineate.config.env import Destination, Environment
from delineate.errors import Conflict, DelineateError, Invalid
from delineate.jobs import JobState
from delineate.studies import services
from delineate.studies.archive import MAX_FILES
from delineate.studies.models import Upload, WayIn
from delineate.studies.selectors import destination_named

logger = logging.getLogger(__name__)

TAKEN, DONE, REFUSED = ".taken", "done", "refused"
_OURS: Final = {TAKEN, DONE, REFUSED}
# What operating systems leave in folders; a leading dot is litter, or a copy in progress.
_LITTER: Final = ("Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Patience:
    """How long things must stay as they are before they are taken."""

    unchanged_for_s: float = 5.0
    # Loose files are taken together; while more of them come, no longer than this.
    together_within_s: float = 60.0
    looks_every_s: float = 2.0


@dataclass(frozen=True)
class _File:
    path: tuple[str, ...]  # below the watched folder
    size: int
    changed_ns: int


@dataclass(frozen=True)
class _Seen:
    """What lay under a name, since when it looks like that, and since when it is there."""

    files: tuple[_File, ...]
    unchanged_since: float
    there_since: float


class _Changed(Exception):
    """Somebody still writes there."""


def run(environment: Environment, patience: Patience) -> None:
    """Look at every folder until SIGTERM."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    services.settle_left_behind(WayIn.FOLDER)
    folders = [
        WatchedFolder(folder, destination, environment, patience)
        for folder, destination in environment.watch.items()
    ]
    logger.info("Watching %d folders", len(folders))
    while not stopping.is_set():
        began = time.monotonic()
        for folder in folders:
            folder.look()
        # Half of the time at most: to list a large folder of a slow share takes long.
        stopping.wait(max(patience.looks_every_s, time.monotonic() - began))


class WatchedFolder:
    """One folder; ``look`` does what is due there."""

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        environment: Environment,
        patience: Patience,
    ) -> None:
        self._folder = folder
        self._destination = destination
        self._environment = environment
        self._patience = patience
        self._seen: dict[str, _Seen] = {}
        self._said = ""  # the last sentence of the log, until a look goes well
        # What stays where it is, as it was then: it is tried again when it has changed.
        self._left: dict[str, tuple[_File, ...]] = {}

    def look(self) -> None:
        """Report on what is ingested, and take what has not changed for long enough."""
        try:
            self._report_on_taken()
            self._see(sorted(self._names()))
            for names in self._due():
                self._take(names)
        except OSError as error:
            self._say(f"It cannot be read or written ({error.strerror}).")
        except django.db.Error:
            django.db.connection.close()
            self._say("The database is away for the moment.")
        except DelineateError as error:
            self._say(str(error))
        else:
            self._said = ""

    def _names(self) -> Iterator[str]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name not in _OURS and not _is_litter(entry.name):
                    yield entry.name

    def _see(self, names: Sequence[str]) -> None:
        now, before = time.monotonic(), self._seen
        self._seen = {}
        for name in names:
            try:
                files = tuple(_files(self._folder, (name,)))
            except FileNotFoundError:
                continue  # it was taken away while it was looked at
            except OSError as error:
                self._leave(name, f"It cannot be read ({error.strerror}).")
                continue
            if not files and not stat.S_ISDIR(os.lstat(self._folder / name).st_mode):
                self._leave(name, "It is a link or a device, and only files are taken.")
                continue
            last = before.get(name)
            same = last is not None and last.files == files
            self._seen[name] = _Seen(
                files,
                unchanged_since=last.unchanged_since if last and same else now,
                there_since=last.there_since if last else now,
            )

    def _due(self) -> Iterator[list[str]]:
        """Names that make an upload together."""
        now = time.monotonic()
        waiting = {
            name: seen
            for name, seen in self._seen.items()
            if seen.files and self._left.get(name) != seen.files
        }
        ripe = [
            name
            for name, seen in waiting.items()
            if now - seen.unchanged_since >= self._patience.unchanged_for_s
        ]
        loose = [name for name in waiting if waiting[name].files[0].path == (name,)]
        together = [name for name in ripe if name in loose and not name.lower().endswith(".zip")]
        alone = [name for name in ripe if name not in together]
        late = any(
            now - waiting[name].there_since >= self._patience.together_within_s for name in together
        )
        if together and (late or set(loose) <= set(ripe)):
            yield together
        for name in alone:
            yield [name]

    def _take(self, names: list[str]) -> None:
        files = tuple(file for name in names for file in self._seen[name].files)
        try:
            self._upload(names, files)
        except _Changed:
            for name in names:
                del self._seen[name]
        except Invalid as error:
            self._move(names, REFUSED, [f"Nothing was taken: {error}"], source=self._folder)
        except OSError as error:
            for name in names:
                self._leave(name, f"It cannot be read ({error.strerror}).")

    def _upload(self, names: list[str], files: tuple[_File, ...]) -> None:
        self._refuse_by_size(files)
        project, user = destination_named(
            self._destination.project, username=self._destination.username
        )
        upload = services.begin_upload(project, by=user, way_in=WayIn.FOLDER)
        try:
            # Where it will go: a folder that cannot be written is found out before all the work.
            aside = _own_folder(self._folder / TAKEN) / str(upload.id)
            aside.mkdir()
            for file in files:
                name = "/".join(file.path)
                services.add_blob(upload, _chunks(self._folder, file), name=name)
            if [*files] != [f for name in names for f in _files(self._folder, (name,))]:
                raise _Changed
        except BaseException as error:
            services.discard_upload(upload)
            if isinstance(error, Conflict | FileNotFoundError):  # ended by a sweep, or gone
                raise _Changed from error
            raise
        services.end_upload(upload)
        for name in names:
            # At first: what cannot be moved is not to be taken again and again.
            self._left[name] = self._seen[name].files
            (self._folder / name).rename(aside / name)
            del self._left[name], self._seen[name]

    def _refuse_by_size(self, files: tuple[_File, ...]) -> None:
        size, limit = sum(file.size for file in files), self._environment.max_upload_bytes
        if len(files) > MAX_FILES or size > limit:
            raise Invalid(
                f"There are more than {MAX_FILES} files or {limit // 1024**2} MiB; put it there in "
                "parts.",
                code="too_large",
            )
        free = storage.free_bytes()
        if free is not None and free < self._environment.min_free_bytes + size:
            raise Conflict("The disk of the store is full: make room there.", code="disk_full")

    def _report_on_taken(self) -> None:
        for aside in sorted(_own_folder(self._folder / TAKEN).iterdir()):
            with suppress(ValueError):  # it is not ours
                self._report_on(aside, upload_id=UUID(aside.name))

    def _report_on(self, aside: Path, *, upload_id: UUID) -> None:
        names = sorted(path.name for path in aside.iterdir())
        upload = Upload.objects.filter(id=upload_id).first()
        if upload is not None and upload.state not in (JobState.DONE, JobState.FAILED):
            return
        if names and upload is None:
            self._move(names, REFUSED, ["Its project has been deleted."], source=aside)
        elif names and upload is not None:
            paths = ["/".join(f.path[1:]) for f in _files(aside.parent, (aside.name,))]
            lines, refused = _report(upload, paths)
            self._move(names, REFUSED if refused else DONE, lines, source=aside)
        aside.rmdir()

    def _move(self, names: list[str], fate: str, lines: list[str], *, source: Path) -> None:
        """Put things where their fate is seen, their report first: a kill may come between."""
        into = _own_folder(self._folder / fate)
        target = _free(into, names[0] if len(names) == 1 else f"{len(names)} files")
        _write(into / f"{target.name}.report.txt", lines)
        if len(names) == 1:
            (source / names[0]).rename(target)
            return
        target.mkdir()
        for name in names:
            (source / name).rename(target / name)

    def _leave(self, name: str, sentence: str) -> None:
        """Say once why something stays: with its name in a report, without it in the log."""
        seen = self._seen.get(name)
        files = seen.files if seen is not None else ()
        if self._left.get(name) == files:
            return
        self._left[name] = files
        into = _own_folder(self._folder / REFUSED)
        _write(into / f"{name}.report.txt", [sentence, "It was left where it is."])
        logger.warning("Something in the folder %s was left there: %s", self._folder, sentence)

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            logger.warning("The folder %s: %s", self._folder, sentence)


def _own_folder(path: Path) -> Path:
    """A folder of ours, made if need be; raises OSError where somebody has put a link."""
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return path


def _files(folder: Path, path: tuple[str, ...]) -> Iterator[_File]:
    """The regular files under a path, in an order that stays; no links, and nothing beyond them."""
    status = os.lstat(folder.joinpath(*path))
    if stat.S_ISREG(status.st_mode):
        yield _File(path, status.st_size, status.st_mtime_ns)
    elif stat.S_ISDIR(status.st_mode):
        for name in sorted(inner.name for inner in folder.joinpath(*path).iterdir()):
            if not _is_litter(name):
                yield from _files(folder, (*path, name))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in _LITTER


def _chunks(folder: Path, file: _File) -> Iterator[bytes]:
    """A file's bytes; raises OSError, also where a part of its path has become a link."""
    opened = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for name in file.path[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            opened.append(os.open(name, flags, dir_fd=opened[-1]))
        # Not waiting for the other end, should it have become a pipe.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        opened.append(os.open(file.path[-1], flags, dir_fd=opened[-1]))
        while chunk := os.read(opened[-1], storage.CHUNK_BYTES):
            yield chunk
    finally:
        for handle in opened:
            os.close(handle)


def _report(upload: Upload, paths: list[str]) -> tuple[list[str], bool]:
    """Lines for people, and whether something was refused."""
    # Of zips the files are numbered: what is in them was not looked at here.
    named = paths if len(paths) == len(upload.report) else []
    lines = [f"Upload {upload.id}: {len(upload.report)} files."]
    if upload.state == JobState.FAILED:
        lines.append(f"It failed: {upload.error_message} [{upload.error_code}]")
    for line in upload.report:
        what = named[line["file"] - 1] if named else f"file {line['file']}"
        why = f": {line['message']} [{line['code']}]" if line["code"] else ""
        lines.append(f"{what}: {line['fate']}{why}")
    refused = any(line["fate"] == "refused" for line in upload.report)
    return lines, refused or upload.state == JobState.FAILED


def _free(into: Path, name: str) -> Path:
    """A path that nothing has."""
    path, number = into / name, 1
    while os.path.lexists(path):
        number += 1
        path = into / f"{Path(name).stem} ({number}){Path(name).suffix}"
    return path


def _write(path: Path, lines: list[str]) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text("".join(f"{line}\n" for line in lines))
    unfinished.replace(path)
