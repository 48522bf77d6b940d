"""Exports of accepted masks."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import FileResponse, HttpRequest
from ninja import Router, Schema, Status
from pydantic import ConfigDict

from delineate.accounts.permissions import user_of
from delineate.exports import selectors, services
from delineate.exports.models import Export, Format
from delineate.jobs import JobState
from delineate.projects.permissions import Action, require
from delineate.projects.selectors import project_for

router = Router(tags=["exports"])

LISTED_AT_MOST = 100


class ExportIn(Schema):
    """What to write; ``reviewed_only``: only the masks of tasks that a reviewer has accepted."""

    model_config = ConfigDict(extra="forbid")

    format: Format
    reviewed_only: bool = True


class EscrowIn(Schema):
    """The text of the project's escrow file: not as a file, which could come to lie on a disk."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    escrow: str


class ExportOut(Schema):
    """An export and how far it has come; its file can be fetched once ``state`` is "done"."""

    id: UUID
    format: Format
    reviewed_only: bool
    state: JobState
    series_done: int
    series_total: int
    size_bytes: int
    digest: str
    created_at: datetime
    finished_at: datetime | None
    error_code: str
    error_message: str


@router.post("/projects/{project_id}/exports", response={201: ExportOut})
def post_export(request: HttpRequest, project_id: UUID, new: ExportIn) -> Status[Export]:
    """Export the project's accepted masks; 409 nothing_to_export."""
    user = user_of(request)
    export = services.request_export(
        project_for(user, project_id), format=new.format, reviewed_only=new.reviewed_only, by=user
    )
    return Status(201, export)


@router.get("/projects/{project_id}/exports", response=list[ExportOut])
def list_exports(request: HttpRequest, project_id: UUID) -> list[Export]:
    """The project's exports, newest first."""
    user = user_of(request)
    project = project_for(user, project_id)
    require(user, Action.VIEW, project)
    return list(project.exports.all()[:LISTED_AT_MOST])


@router.get("/exports/{export_id}", response=ExportOut)
def get_export(request: HttpRequest, export_id: UUID) -> Export:
    """One export."""
    return selectors.export_for(user_of(request), export_id)


@router.get(
    "/exports/{export_id}/file",
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "description": "The zip.",
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            }
        }
    },
)
def get_file(request: HttpRequest, export_id: UUID) -> FileResponse:
    """The finished export as a zip; 409 not_ready."""
    user = user_of(request)
    export = selectors.export_for(user, export_id)
    file = services.open_file(export, by=user)
    response = FileResponse(
        file, as_attachment=True, filename=export.file_name, content_type="application/zip"
    )
    response["Content-Length"] = str(export.size_bytes)
    response["Cache-Control"] = "private, no-store"
    return response


@router.post(
    "/exports/{export_id}/reidentified",
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "description": "The zip, with identities.",
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            }
        }
    },
)
def reidentify(request: HttpRequest, export_id: UUID, given: EscrowIn) -> FileResponse:
    """The finished export with its patients' identities; 409 no_escrow, 422 escrow_wrong_key."""
    user = user_of(request)
    export = selectors.export_for(user, export_id)
    file = services.reidentify(export, escrow=given.escrow, by=user)
    response = FileResponse(
        file,
        as_attachment=True,
        filename=f"reidentified-{export.file_name}",
        content_type="application/zip",
    )
    response["Cache-Control"] = "private, no-store"
    return response
