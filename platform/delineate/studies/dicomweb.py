"""WADO-RS (PS3.18 10.4) for the viewer: a series' metadata, and frames as little-endian pixels."""

from __future__ import annotations

import io
import uuid
from uuid import UUID

import numpy as np
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET
from pydicom.uid import ExplicitVRLittleEndian

from delineate import storage
from delineate.config.http import answer
from delineate.errors import DelineateError, NotSignedIn
from delineate.projects.models import Project
from delineate.projects.selectors import project_for
from delineate.studies import selectors
from delineate.studies.models import Quarantine, Slice

# A frame never changes under its UIDs, and is for the signed-in person only …
_CACHE = "private, max-age=31536000, immutable"
# … but for one that is held: boxes may still be blacked out of it.
_CACHE_OF_HELD = "private, no-store"


@require_GET
def series_metadata(
    request: HttpRequest, project_id: UUID, study_uid: str, series_uid: str
) -> HttpResponse:
    """The headers of a series' instances as DICOM JSON."""
    try:
        project = _project(request, project_id)
        headers = selectors.headers_in(
            project, study_uid=study_uid, series_uid=series_uid, reader=request.user
        )
    except DelineateError as error:
        return answer(error)
    return JsonResponse(headers, safe=False, content_type="application/dicom+json")


@require_GET
def frame(
    request: HttpRequest,
    project_id: UUID,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    number: int,
) -> HttpResponse:
    """One frame's pixels, explicit little endian, as a multipart answer of one part."""
    try:
        project = _project(request, project_id)
        slice_ = selectors.slice_in(
            project,
            study_uid=study_uid,
            series_uid=series_uid,
            sop_uid=sop_uid,
            frame=number,
            reader=request.user,
        )
        pixels = _pixels(slice_)
    except DelineateError as error:
        return answer(error)
    boundary = uuid.uuid4().hex
    # Cornerstone reads the transfer syntax from the part's header, unquoted.
    kind = f"Content-Type: application/octet-stream;transfer-syntax={ExplicitVRLittleEndian}"
    # … and values of four bytes only from where they may begin in memory.
    boundary += "0" * (-len(f"--{boundary}\r\n{kind}\r\n\r\n") % 4)
    response = HttpResponse(
        f"--{boundary}\r\n{kind}\r\n\r\n".encode() + pixels + f"\r\n--{boundary}--\r\n".encode(),
        content_type=f'multipart/related; type="application/octet-stream"; boundary={boundary}',
    )
    is_held = slice_.series.quarantine == Quarantine.HELD
    response["Cache-Control"] = _CACHE_OF_HELD if is_held else _CACHE
    return response


def _project(request: HttpRequest, project_id: UUID) -> Project:
    if not request.user.is_authenticated:
        raise NotSignedIn("Sign in first.")
    return project_for(request.user, project_id)


def _pixels(slice_: Slice) -> bytes:
    stored = np.load(io.BytesIO(storage.get(slice_.pixels_key)), allow_pickle=False)
    return bytes(stored.tobytes())
