"""tus 1.0 (https://tus.io/protocols/resumable-upload): uploads that go on where they stopped.

Core, with creation, expiration, termination and checksum. Nothing of Upload-Metadata is kept or
told again: a file's name can identify a person. The address of a transfer is its upload's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Concatenate, Final, ParamSpec
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import http_date
from ninja import Router

from delineate.accounts.permissions import user_of
from delineate.config.http import answer
from delineate.errors import DelineateError, Invalid
from delineate.jobs import JobState
from delineate.projects.permissions import Action, require
from delineate.projects.selectors import project_for
from delineate.studies import expiry, selectors, transfers
from delineate.studies.models import Upload
from delineate.studies.transfers import Checksum

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,expiration,termination,checksum"
ALGORITHMS: Final = ("sha1", "sha256")
PART_TYPE: Final = "application/offset+octet-stream"
CHUNK_BYTES: Final = 1024 * 1024

router = Router(tags=["transfers"])

Rest = ParamSpec("Rest")


class WrongVersion(DelineateError):
    """The client speaks another version of the protocol, or none."""

    status = 412
    code = "wrong_version"


class WrongType(Invalid):
    """A part says that it is something else."""

    status = 415
    code = "wrong_type"


class Malformed(Invalid):
    """A header is missing, or not as the protocol has it."""

    status = 400
    code = "malformed"


def _speaks_tus(
    view: Callable[Concatenate[HttpRequest, Rest], HttpResponse],
) -> Callable[Concatenate[HttpRequest, Rest], HttpResponse]:
    """Refusals too carry the protocol's headers."""

    @wraps(view)
    def wrapped(request: HttpRequest, /, *args: Rest.args, **kwargs: Rest.kwargs) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except DelineateError as error:
            response = answer(error)
        response["Tus-Resumable"] = VERSION
        if response.status_code == WrongVersion.status:
            response["Tus-Version"] = VERSION
        return response

    return wrapped


@router.api_operation(["OPTIONS"], "/projects/{project_id}/transfers", response={204: None})
def describe_transfers(request: HttpRequest, project_id: UUID) -> HttpResponse:
    """What of the protocol can be used here."""
    project_for(user_of(request), project_id)
    return HttpResponse(
        status=204,
        headers={
            "Tus-Resumable": VERSION,
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(settings.ENVIRONMENT.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


@router.post("/projects/{project_id}/transfers", response={201: None})
@_speaks_tus
def begin_transfer(request: HttpRequest, project_id: UUID) -> HttpResponse:
    """Begin an upload of ``Upload-Length`` bytes; ``Location`` is where its parts go."""
    user = user_of(request)
    project = project_for(user, project_id)
    require(user, Action.UPLOAD, project)  # before the request is judged for what it says
    _refuse_other_versions(request)
    upload = transfers.begin(project, by=user, expected_bytes=_number(request, "Upload-Length"))
    address = reverse("api:transfer", kwargs={"transfer_id": upload.id})
    return HttpResponse(status=201, headers={"Location": address, **_standing(upload)})


@router.api_operation(
    ["HEAD"], "/transfers/{transfer_id}", url_name="transfer", response={200: None}
)
@_speaks_tus
def ask_of_transfer(request: HttpRequest, transfer_id: UUID) -> HttpResponse:
    """``Upload-Offset``: how much of it has come, and where the next part begins."""
    upload = selectors.transfer_for(user_of(request), transfer_id)
    _refuse_other_versions(request)
    transfers.refuse_if_gone(upload)
    return HttpResponse(
        headers={
            **_standing(upload),
            "Upload-Length": str(upload.expected_bytes),
            "Cache-Control": "no-store",
        }
    )


@router.patch("/transfers/{transfer_id}", response={204: None})
@_speaks_tus
def append_to_transfer(request: HttpRequest, transfer_id: UUID) -> HttpResponse:
    """Add a part at ``Upload-Offset``; it is durable when this is answered."""
    upload = selectors.transfer_for(user_of(request), transfer_id)
    _refuse_other_versions(request)
    if request.content_type != PART_TYPE:
        raise WrongType(f"A part is of the type {PART_TYPE}.")
    upload = transfers.append(
        upload,
        offset=_number(request, "Upload-Offset"),
        chunks=_body(request),
        checksum=_checksum(request),
    )
    return HttpResponse(status=204, headers=_standing(upload))


@router.delete("/transfers/{transfer_id}", response={204: None})
@_speaks_tus
def discard_transfer(request: HttpRequest, transfer_id: UUID) -> HttpResponse:
    """Cancel an upload that is not complete; its bytes go at once."""
    user = user_of(request)
    upload = selectors.transfer_for(user, transfer_id)
    _refuse_other_versions(request)
    transfers.discard(upload, by=user)
    return HttpResponse(status=204)


def _standing(upload: Upload) -> dict[str, str]:
    headers = {"Upload-Offset": str(upload.size_bytes)}
    if upload.state == JobState.ARRIVING:
        headers["Upload-Expires"] = http_date(expiry.expires_at(upload).timestamp())
    return headers


def _refuse_other_versions(request: HttpRequest) -> None:
    if request.headers.get("Tus-Resumable") != VERSION:
        raise WrongVersion(f"Tus-Resumable has to be {VERSION}.")


def _number(request: HttpRequest, header: str) -> int:
    value = request.headers.get(header, "")
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise Malformed(f"{header} has to be a number of bytes.")
    return int(value)


def _checksum(request: HttpRequest) -> Checksum | None:
    header = request.headers.get("Upload-Checksum")
    if header is None:
        return None
    algorithm, _, encoded = header.partition(" ")
    if algorithm not in ALGORITHMS:
        raise Malformed(f"Upload-Checksum has to be one of {', '.join(ALGORITHMS)}.")
    try:
        return Checksum(algorithm, base64.b64decode(encoded, validate=True))
    except binascii.Error as error:
        raise Malformed("Upload-Checksum has to be base64.") from error


def _body(request: HttpRequest) -> Iterator[bytes]:
    """As the server spooled it: never as ``request.body``, which is all of it in memory."""
    return iter(partial(request.read, CHUNK_BYTES), b"")
