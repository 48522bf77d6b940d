"""`delineate export`: write a project's accepted masks to a file."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Final

from delineate.accounts.models import User
from delineate.errors import Conflict, NotFound
from delineate.exports.models import Export, Format
from delineate.exports.services import open_file, request_export
from delineate.jobs import JobState
from delineate.projects.selectors import project_named

ASK_EVERY_S: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `delineate export`."""
    parser.add_argument("project", help="the project's name or id")
    parser.add_argument("--format", choices=Format.values, required=True)
    parser.add_argument("--to", type=Path, required=True, help="the zip to write")
    parser.add_argument("--as", dest="username", required=True, help="a lead of the project")
    parser.add_argument(
        "--unreviewed",
        action="store_true",
        help="every accepted mask, also of tasks that no reviewer has accepted yet",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, wait, and write the file; 1 when the export was refused."""
    if arguments.to.exists():
        raise Conflict(f"{arguments.to} is there already.", code="file_exists")
    user = User.objects.filter(username=arguments.username).first()
    if user is None:
        raise NotFound(f"There is no user {arguments.username}.", code="unknown_user")
    export = request_export(
        project_named(arguments.project),
        format=Format(arguments.format),
        reviewed_only=not arguments.unreviewed,
        by=user,
    )
    export = _follow(export)
    if export.state == JobState.FAILED:
        print(f"{export.error_message} [{export.error_code}]")
        return 1
    with open_file(export, by=user) as source, arguments.to.open("xb") as target:
        shutil.copyfileobj(source, target)
    print(f"{arguments.to}: {export.series_done} series, {export.size_bytes} bytes")
    return 0


def _follow(export: Export) -> Export:
    while export.state not in (JobState.DONE, JobState.FAILED):
        time.sleep(ASK_EVERY_S)
        export.refresh_from_db()
        print(f"\r{export.series_done}/{export.series_total} series", end="", flush=True)
    print()
    return export
