"""Acts on exports."""

from __future__ import annotations

import logging
import uuid
from contextlib import closing
from functools import partial
from typing import BinaryIO

from django.db import transaction
from kombu.exceptions import OperationalError

from delineate import live, storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid
from delineate.exports import selectors
from delineate.exports.build import digest_of
from delineate.exports.models import Export, Format
from delineate.exports.reidentify import put_identities_back
from delineate.exports.tasks import build_export_task
from delineate.jobs import JobState
from delineate.projects.escrow import read_escrow
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require

logger = logging.getLogger(__name__)


def request_export(project: Project, *, format: Format, reviewed_only: bool, by: User) -> Export:
    """Owe an export of the project's accepted masks; Conflict ``nothing_to_export``."""
    require(by, Action.EXPORT, project)
    series = selectors.tasks_with_masks(project, reviewed_only=reviewed_only).count()
    if not series:
        raise Conflict(
            "There is nothing to export: no task with masks has been accepted by a reviewer."
            if reviewed_only
            else "There is nothing to export: no mask has been accepted.",
            code="nothing_to_export",
        )
    with transaction.atomic():
        export = Export.objects.create(
            project=project,
            by=by,
            format=format,
            reviewed_only=reviewed_only,
            series_total=series,
        )
        audit.export_requested(
            project.id, export.id, by=by, format=format, reviewed_only=reviewed_only
        )
        live.tell(
            project.id,
            "export",
            id=export.id,
            state=str(export.state),
            series_done=0,
            series_total=series,
        )
        transaction.on_commit(partial(_hurry, export.id))
    return export


def open_file(export: Export, *, by: User) -> BinaryIO:
    """The finished zip, its leaving recorded; Conflict ``not_ready`` or ``study_deleted``."""
    require(by, Action.EXPORT, export.project)
    _refuse_unready(export)
    file = storage.open_for_reading(export.file_key)
    with transaction.atomic():
        audit.export_downloaded(export.project_id, export.id, by=by, digest=export.digest)
    return file


def reidentify(export: Export, *, escrow: str, by: User, file: BinaryIO | None = None) -> BinaryIO:
    """The finished zip with identities, its leaving recorded; ``file``: a copy that was fetched.

    ``escrow`` is the text of the project's escrow file: used and forgotten. Raises Conflict
    ``no_escrow``, ``not_ready``, ``study_deleted``, Invalid ``escrow_unreadable``,
    ``escrow_wrong_key``, ``export_unknown``.
    """
    require(by, Action.MANAGE, export.project)
    _refuse_unready(export)
    public_key = export.project.escrow_public_key
    if public_key is None:
        raise Conflict("This project's identities were removed for good.", code="no_escrow")
    key = read_escrow(escrow, project_id=export.project_id, public_key=bytes(public_key))
    originals = selectors.originals_in(export, key=key)
    with closing(file or storage.open_for_reading(export.file_key)) as source:
        if digest_of(source) != export.digest:
            raise Invalid("The file is not as it was exported.", code="export_unknown")
        identified = put_identities_back(source, originals)
    with transaction.atomic():
        audit.export_reidentified(
            export.project_id, export.id, by=by, digest=export.digest, studies=len(originals)
        )
    return identified


def _refuse_unready(export: Export) -> None:
    if export.state != JobState.DONE:
        raise Conflict(export.error_message or "The export is not finished yet.", code="not_ready")
    if selectors.deleted_studies([export]):
        raise Conflict(
            "A study in this export has been deleted; export again.", code="study_deleted"
        )


def _hurry(export_id: uuid.UUID) -> None:
    try:
        build_export_task.delay(str(export_id))
    except (OperationalError, OSError) as error:
        logger.warning("Export %s waits for the sweep: %s", export_id, error)
