"""`delineate import`: upload files or a folder into a project, and follow their ingest."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.core.files import File

from delineate.errors import Invalid
from delineate.jobs import JobState
from delineate.studies import mapping
from delineate.studies.models import Upload, WayIn
from delineate.studies.selectors import destination_named
from delineate.studies.services import receive_upload

ASK_EVERY_S: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `delineate import`."""
    parser.add_argument("path", type=Path, nargs="+", help="zip, DICOM file, picture or folder")
    parser.add_argument(
        "--subjects", type=Path, help="CSV of file and subject, for images that do not say who"
    )
    parser.add_argument("--project", required=True, help="the project's name or id")
    parser.add_argument("--as", dest="username", required=True, help="a lead of the project")


def run(arguments: argparse.Namespace) -> int:
    """Upload and wait for the report; 1 when a file was refused."""
    files = [file for path in arguments.path for file in _files(path)]
    if arguments.subjects is not None:
        files.append(_OnDisk(_existing(arguments.subjects), name=mapping.NAME))
    progress = _Progress(sum(file.size for file in files))
    for file in files:
        file.progress = progress
    project, user = destination_named(arguments.project, username=arguments.username)
    upload = _follow(receive_upload(project, files=files, by=user, way_in=WayIn.COMMAND))
    print(", ".join(f"{n} {fate}" for fate, n in Counter(f["fate"] for f in upload.report).items()))
    refused = [line for line in upload.report if line["fate"] == "refused"]
    for line in upload.report:
        if line in refused or line["code"] == "mapping_unmatched":
            print(f"file {line['file']}: {line['message']} [{line['code']}]")
    if upload.state == JobState.FAILED:
        print(f"{upload.error_message} [{upload.error_code}]")
    return 1 if refused or upload.state == JobState.FAILED else 0


class _Progress:
    """How many bytes have been stored, told now and then."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._told_at = total, 0, 0.0

    def add(self, size: int) -> None:
        self._done += size
        if self._done == self._total or time.monotonic() - self._told_at >= ASK_EVERY_S:
            self._told_at = time.monotonic()
            done, total = (f"{size / 1024**2:.1f}" for size in (self._done, self._total))
            print(f"\rstored {done} of {total} MB", end="", flush=True)


class _OnDisk(File):  # type: ignore[type-arg]  # takes no argument at run time
    """A file that is open only while it is read: a study has more files than a process may open."""

    def __init__(self, path: Path, *, name: str) -> None:
        super().__init__(None, name)
        self._path = path
        self.progress: _Progress | None = None
        self.size = path.stat().st_size

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(chunk_size or self.DEFAULT_CHUNK_SIZE):
                yield chunk
                if self.progress is not None:
                    self.progress.add(len(chunk))


def _files(path: Path) -> list[_OnDisk]:
    """What is given, each by its path below it."""
    base = path if path.is_dir() else path.parent
    return [_OnDisk(each, name=each.relative_to(base).as_posix()) for each in _paths(path)]


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return [_existing(path)]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise Invalid(f"There is nothing at {path}.", code="no_such_path")
    return path


def _follow(upload: Upload) -> Upload:
    print()
    while upload.state not in (JobState.DONE, JobState.FAILED):
        time.sleep(ASK_EVERY_S)
        upload.refresh_from_db()
        print(f"\r{upload.files_done}/{upload.files_total} files", end="", flush=True)
    print()
    return upload
