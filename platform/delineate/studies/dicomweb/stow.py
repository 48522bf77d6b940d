"""STOW-RS (PS3.18 10.5): DICOM files in, one request an upload.

The answer comes when everything is kept durably, in one file with one wait for the disk; ingest
goes on afterwards, as with every upload, and what it refuses stands in the upload's report, whose
address is in the answer's Link. What cannot be told apart from noise, or is of a kind that never
goes in, is refused at once, instance by instance. Senders are answered with their own UIDs, and
with the addresses under which the instances will be found here, which are made of ours.

A request that was authenticated by a token (``request.by_token``) needs no CSRF token: no browser
adds such a one by itself. Every other needs it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import Any, BinaryIO, Final, cast

from django.conf import settings
from django.core.files import File
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja.utils import check_csrf
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from delineate.accounts.models import User
from delineate.errors import Invalid, NotAllowed
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies import deidentify, kinds, pixels, services
from delineate.studies.archive import MAX_FILE_BYTES, MAX_FILES, Refused
from delineate.studies.dicomweb.entrance import of_project
from delineate.studies.dicomweb.multipart import PIECE_BYTES, Malformed, parts
from delineate.studies.dicomweb.negotiation import (
    DICOM,
    DICOM_JSON,
    JSON,
    MULTIPART,
    Form,
    choose,
    media_type,
)
from delineate.studies.models import Upload, WayIn
from delineate.studies.selectors import Shown
from delineate.studies.services import UploadTooLarge

# Why an instance is not stored (PS3.18 table 10.5.3-1 and I.2.2, with the codes of PS3.4 B.2.3).
OUT_OF_RESOURCES: Final = 0xA700
OF_ANOTHER_STUDY: Final = 0xA901  # the data set does not match
CANNOT_UNDERSTAND: Final = 0xC000
UNSUPPORTED_CLASS: Final = 0x0122

_ANSWERS: Final = (Form(DICOM_JSON), Form(JSON))
HELD_BYTES: Final = 8 * 1024**2  # of a part; what is larger waits on disk
MAX_DEFLATED_BYTES: Final = 64 * 1024**2  # a deflated header is only read by inflating it all
_HEAD_BYTES: Final = 1024  # where the transfer syntax stands
_LAST_UID: Final = 0x0020000E
_UIDS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_UID_TAGS: Final[list[BaseTag | int]] = [Tag(keyword) for keyword in _UIDS]


class UnsupportedMediaType(Invalid):
    """A body of a kind that is not taken."""

    status = 415
    code = "unsupported_media_type"


@dataclass(frozen=True)
class Named:
    """What an instance calls itself: the sender's UIDs."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


@dataclass
class _Received:
    """What has become of a request's parts."""

    stored: list[Named] = field(default_factory=list)
    failed: list[tuple[Named | None, int]] = field(default_factory=list)


@of_project
def store(request: HttpRequest, shown: Shown, study_uid: str | None = None) -> HttpResponse:
    """Take in the parts of a request, of one study where its address names it."""
    user, project = request.user, shown.project
    assert isinstance(user, User), "nobody else is let in"
    if getattr(request, "by_token", False) is not True and check_csrf(request) is not None:
        raise NotAllowed("Send a CSRF token, or sign in with an API token.", code="csrf_failed")
    require(user, Action.UPLOAD, project)
    form = choose(request.headers.get("Accept") or "*/*", _ANSWERS)
    boundary = _boundary(request)
    with TemporaryFile() as file:
        received = _receive(request, boundary, study_uid=study_uid, into=file)
        upload = None
        if received.stored:
            kept = File(file, name="stow.zip")
            kept.size = file.seek(0, 2)
            upload = services.receive_upload(project, files=[kept], by=user, way_in=WayIn.STOW)
    return _answer(request, project, received, upload, content_type=form.media_type)


def _boundary(request: HttpRequest) -> str:
    kind = media_type(request.headers.get("Content-Type") or "")
    if kind.name != MULTIPART or kind.parameters.get("type", "").lower() != DICOM:
        raise UnsupportedMediaType(f'Send {MULTIPART}; type="{DICOM}".')
    return kind.parameters.get("boundary", "")


def _receive(
    request: HttpRequest, boundary: str, *, study_uid: str | None, into: BinaryIO
) -> _Received:
    """Write what is to be kept into a zip; raises Malformed, UploadTooLarge."""
    received = _Received()
    limit: int = settings.ENVIRONMENT.max_upload_bytes
    size = count = 0
    # Stored, not deflated: it is read once, soon.
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        for part in parts(request.read, boundary=boundary):
            count += 1
            if count > MAX_FILES:
                raise Malformed(
                    f"The request has more than {MAX_FILES} parts; send it in several.",
                    code="too_many_files",
                )
            kind = part.headers.get("content-type")
            if kind is not None and media_type(kind).name != DICOM:
                raise UnsupportedMediaType(f"A part of the request is not {DICOM}.")
            with SpooledTemporaryFile(HELD_BYTES) as spooled:
                file = cast(BinaryIO, spooled)
                size += _copy(part.content, file, most=min(limit - size, limit))
                _judge(file, study_uid=study_uid, received=received, archive=archive)
    if count == 0:
        raise Malformed("The request has no parts.")
    return received


def _copy(content: Iterator[bytes], file: BinaryIO, *, most: int) -> int:
    size = 0
    for piece in content:
        size += len(piece)
        if size > most:
            limit: int = settings.ENVIRONMENT.max_upload_bytes
            raise UploadTooLarge(
                f"The request is larger than {limit // 1024**2} MiB; send it in parts.",
                limit_bytes=limit,
            )
        file.write(piece)
    return size


def _judge(
    file: BinaryIO, *, study_uid: str | None, received: _Received, archive: zipfile.ZipFile
) -> None:
    size = file.tell()
    named = _named(file, size=size)
    if named is None:
        received.failed.append((None, CANNOT_UNDERSTAND))
    elif size > MAX_FILE_BYTES:
        received.failed.append((named, OUT_OF_RESOURCES))
    elif named.sop_class_uid not in kinds.TAKEN:
        received.failed.append((named, UNSUPPORTED_CLASS))
    elif study_uid not in (None, named.study_uid):
        received.failed.append((named, OF_ANOTHER_STUDY))
    else:
        received.stored.append(named)
        file.seek(0)
        with archive.open(zipfile.ZipInfo(f"{len(received.stored)}.dcm"), "w") as member:
            while piece := file.read(PIECE_BYTES):
                member.write(piece)


def _named(file: BinaryIO, *, size: int) -> Named | None:
    """What the header says, read no further than that; None where it is none, or says too little.

    Taken as ingest takes it, which reads the file whole later on.
    """
    try:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if DeflatedExplicitVRLittleEndian.encode() in head:
            if size > MAX_DEFLATED_BYTES:
                return None
            dataset = pixels.parse(file.read())
        else:
            dataset = read_partial(
                file, stop_when=_is_after_uids, force=True, specific_tags=_UID_TAGS
            )
        values = [str(dataset.get(keyword, "") or "") for keyword in _UIDS]
    except Refused:
        return None
    except Exception:  # pydicom raises what its parts raise, down to struct.error
        return None
    return Named(*values) if all(values) else None


def _is_after_uids(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _LAST_UID


def _answer(
    request: HttpRequest,
    project: Project,
    received: _Received,
    upload: Upload | None,
    *,
    content_type: str,
) -> HttpResponse:
    """The Store Instances Response (PS3.18 10.5.3 and annex I)."""
    ours = partial(deidentify.kept_uid, key=bytes(project.pseudonym_key), policy=project.privacy)
    root = request.build_absolute_uri(f"/dicomweb/{project.id}/studies")
    answer: dict[str, Any] = {}
    studies = {named.study_uid for named in received.stored}
    if len(studies) == 1:
        answer["00081190"] = _ur(f"{root}/{ours(studies.pop())}")
    sequences: dict[str, list[dict[str, Any]]] = {"00081198": [], "00081199": [], "0008119A": []}
    for named in received.stored:
        study, series, instance = (
            ours(uid) for uid in (named.study_uid, named.series_uid, named.sop_instance_uid)
        )
        address = f"{study}/series/{series}/instances/{instance}"
        sequences["00081199"].append({**_reference(named), "00081190": _ur(f"{root}/{address}")})
    for failed, reason in received.failed:
        why = {"00081197": {"vr": "US", "Value": [reason]}}
        if failed is None:
            sequences["0008119A"].append(why)
        else:
            sequences["00081198"].append({**_reference(failed), **why})
    for tag, items in sequences.items():
        if items:
            answer[tag] = {"vr": "SQ", "Value": items}
    status = 409 if not received.stored else 202 if received.failed else 200
    response = JsonResponse(dict(sorted(answer.items())), status=status, content_type=content_type)
    if upload is not None:
        report = request.build_absolute_uri(f"/api/uploads/{upload.id}")
        response["Link"] = f'<{report}>; rel="describedby"'
    return response


def _reference(named: Named) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [named.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [named.sop_instance_uid]},
    }


def _ur(address: str) -> dict[str, Any]:
    return {"vr": "UR", "Value": [address]}
