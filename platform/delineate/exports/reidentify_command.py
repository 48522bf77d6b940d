"""`delineate reidentify`: an export's file with its patients' identities put back."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from uuid import UUID
from zipfile import BadZipFile, ZipFile

from delineate.accounts.models import User
from delineate.errors import Conflict, Invalid, NotFound
from delineate.exports.build import MANIFEST
from delineate.exports.models import Export
from delineate.exports.selectors import export_for
from delineate.exports.services import reidentify
from delineate.projects.escrow import FILE_AT_MOST_BYTES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `delineate reidentify`."""
    parser.add_argument("export", type=Path, help="an export's zip")
    parser.add_argument("--escrow", type=Path, required=True, help="the project's escrow file")
    parser.add_argument("--out", type=Path, required=True, help="the zip to write")
    parser.add_argument("--as", dest="username", required=True, help="a lead of the project")


def run(arguments: argparse.Namespace) -> int:
    """Write the zip with identities."""
    if arguments.out.exists():
        raise Conflict(f"{arguments.out} is there already.", code="file_exists")
    for path in (arguments.export, arguments.escrow):
        if not path.is_file():
            raise Invalid(f"There is nothing at {path}.", code="no_such_path")
    user = User.objects.filter(username=arguments.username).first()
    if user is None:
        raise NotFound(f"There is no user {arguments.username}.", code="unknown_user")
    with arguments.escrow.open("rb") as key_file:
        key = key_file.read(FILE_AT_MOST_BYTES).decode(errors="replace")
    with arguments.export.open("rb") as file:
        export = _export_of(file.name, user=user)
        identified = reidentify(export, escrow=key, file=file, by=user)
    with arguments.out.open("xb") as target:
        shutil.copyfileobj(identified, target)
    print(f"{arguments.out}: with the identities of its patients")
    return 0


def _export_of(path: str, *, user: User) -> Export:
    try:
        with ZipFile(path) as archive:
            return export_for(user, UUID(json.loads(archive.read(MANIFEST))["export"]))
    except (BadZipFile, KeyError, ValueError) as error:
        raise Invalid("The file is no export of Delineate.", code="export_unknown") from error
