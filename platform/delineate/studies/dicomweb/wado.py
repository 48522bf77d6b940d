"""WADO-RS (PS3.18 10.4): objects, metadata, frames, bulk data, and pictures of them.

What leaves here was decoded and checked at ingest; files are composed of a header and pixels while
they are sent. Frames go as JPEG-LS to those who accept any transfer syntax, as viewers do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, TypeVar

import numpy as np
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET
from pydicom.uid import ExplicitVRLittleEndian

from delineate import storage
from delineate.studies import rendering, selectors
from delineate.studies.dicomweb import multipart, part10
from delineate.studies.dicomweb.entrance import of_project
from delineate.studies.dicomweb.multipart import Malformed
from delineate.studies.dicomweb.negotiation import (
    DICOM,
    DICOM_JSON,
    JLS,
    JSON,
    OCTETS,
    Form,
    choose,
)
from delineate.studies.lossless import TRANSFER_SYNTAX, jpeg_ls_of, pixels_of
from delineate.studies.models import Quarantine, Reference, Slice
from delineate.studies.pixels import MAX_FRAMES
from delineate.studies.selectors import Header, Shown

ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)

# What lies under an image's UIDs never changes, and is for the signed-in person only …
CACHE: Final = "private, max-age=31536000, immutable"
# … but for what is held, as boxes may be blacked out of it, and for series, which may grow.
CACHE_NOTHING: Final = "private, no-store"
NATIVE: Final = str(ExplicitVRLittleEndian)

FILES: Final = (
    Form(DICOM, NATIVE, is_multipart=True),
    Form(DICOM, TRANSFER_SYNTAX, is_multipart=True),
)
ONE_FILE: Final = (*FILES, Form(DICOM, NATIVE), Form(DICOM, TRANSFER_SYNTAX))
METADATA: Final = (Form(DICOM_JSON), Form(JSON))
# In order of preference. Viewers ask for octets of any transfer syntax, and mean compressed ones.
FRAMES: Final = (
    Form(OCTETS, TRANSFER_SYNTAX, is_multipart=True),
    Form(OCTETS, NATIVE, is_multipart=True),
    Form(JLS, TRANSFER_SYNTAX, is_multipart=True),
)
FRAME: Final = (
    *FRAMES,
    Form(OCTETS, TRANSFER_SYNTAX),
    Form(OCTETS, NATIVE),
    Form(JLS, TRANSFER_SYNTAX),
)
_BULK: Final = (Form(OCTETS, NATIVE, is_multipart=True), Form(OCTETS, NATIVE))
PICTURES: Final = (Form("image/jpeg"), Form("image/png"))

_JSON_AT_ONCE_BYTES: Final = 64 * 1024
_MAX_PICTURE_SIDE: Final = 16_384
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_THUMBNAIL: Final = (128, 128)


@require_GET
@of_project
def retrieve(
    request: HttpRequest,
    shown: Shown,
    study_uid: str,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> HttpResponseBase:
    """A study, series or instance as DICOM files."""
    objects = selectors.objects_in(
        shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid
    )
    references = selectors.references_in(
        shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid
    )
    if sop_uid is None:
        form = choose(_accept(request), FILES)
    elif (reference := references.first()) is None:
        form = choose(_accept(request), ONE_FILE)
    else:
        form = choose(_accept(request), _as_it_is(reference))
    lasts = sop_uid is not None and not shown.sees_held
    files = chain(
        (_file(*each, transfer_syntax=form.transfer_syntax) for each in objects),
        (_reference_file(*each) for each in selectors.with_headers(references)),
    )
    if not form.is_multipart:
        content_type, content = next(files)
        return _kept(StreamingHttpResponse(content, content_type=content_type), lasts=lasts)
    answer = multipart.written(files, media_type=DICOM)
    return _kept(
        StreamingHttpResponse(answer.pieces, content_type=answer.content_type), lasts=lasts
    )


@require_GET
@of_project
def metadata(
    request: HttpRequest,
    shown: Shown,
    study_uid: str,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> HttpResponseBase:
    """The headers of a study, series or instance as DICOM JSON."""
    form = choose(_accept(request), METADATA)
    headers = selectors.headers_in(
        shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid
    )
    references = selectors.references_in(
        shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid
    )
    root = request.build_absolute_uri(f"/dicomweb/{shown.project.id}")
    told = chain(
        (_with_bulk_data(_told(header), root) for header in headers),
        # Their pixels are had with the file alone.
        (_told(header) for header, _ in selectors.with_headers(references)),
    )
    return StreamingHttpResponse(_json_array(told), content_type=form.media_type)


@require_GET
@of_project
def frames(
    request: HttpRequest,
    shown: Shown,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    numbers: str,
) -> HttpResponseBase:
    """Frames' pixels, each a part; ``numbers`` from 1 on, with commas between them."""
    slices = selectors.slices_in(
        shown,
        study_uid=study_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
        frames=_numbers(numbers),
    )
    forms = FRAME if len(slices) == 1 else FRAMES
    form = choose(_accept(request), forms)
    if form.transfer_syntax != NATIVE and not _can_be_small(slices):
        form = choose(_accept(request), [each for each in forms if each.transfer_syntax == NATIVE])
    # Cornerstone reads the transfer syntax from the part's header, unquoted.
    kind = f"{form.media_type};transfer-syntax={form.transfer_syntax}"
    contents = _frames(slices, transfer_syntax=form.transfer_syntax)
    if not form.is_multipart:
        return _kept(HttpResponse(next(contents), content_type=kind), lasts=_last(slices))
    answer = multipart.written(
        ((kind, iter([content])) for content in contents), media_type=form.media_type
    )
    if len(slices) == 1:  # in one piece: a piece each for its beginning and end takes longer
        whole = b"".join(answer.pieces)
        return _kept(HttpResponse(whole, content_type=answer.content_type), lasts=_last(slices))
    return _kept(
        StreamingHttpResponse(answer.pieces, content_type=answer.content_type), lasts=_last(slices)
    )


@require_GET
@of_project
def bulk_data(
    request: HttpRequest, shown: Shown, study_uid: str, series_uid: str, sop_uid: str
) -> HttpResponseBase:
    """The value of PixelData: all frames, one after the other, little endian."""
    form = choose(_accept(request), _BULK)
    slices = selectors.slices_in(shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid)
    content = _frames(slices, transfer_syntax=NATIVE)
    kind = f"{OCTETS};transfer-syntax={NATIVE}"
    if not form.is_multipart:
        return _kept(StreamingHttpResponse(content, content_type=kind), lasts=_last(slices))
    answer = multipart.written(iter([(kind, content)]), media_type=OCTETS)
    return _kept(
        StreamingHttpResponse(answer.pieces, content_type=answer.content_type), lasts=_last(slices)
    )


@require_GET
@of_project
def rendered(
    request: HttpRequest,
    shown: Shown,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    number: int = 1,
) -> HttpResponseBase:
    """A frame, or an instance's first, as a picture in its own size or fit into a viewport."""
    return _picture(request, shown, (study_uid, series_uid, sop_uid, number), most=None)


@require_GET
@of_project
def thumbnail(
    request: HttpRequest,
    shown: Shown,
    study_uid: str,
    series_uid: str,
    sop_uid: str,
    number: int = 1,
) -> HttpResponseBase:
    """The same, small."""
    return _picture(request, shown, (study_uid, series_uid, sop_uid, number), most=_THUMBNAIL)


def _accept(request: HttpRequest) -> str:
    """What is accepted: in a query parameter where links cannot have headers (PS3.18 8.3.3.1)."""
    return str(request.GET.get("accept") or request.headers.get("Accept") or "*/*")


def _last(slices: list[Slice]) -> bool:
    return not any(slice_.series.quarantine == Quarantine.HELD for slice_ in slices)


def _kept(response: ResponseT, *, lasts: bool) -> ResponseT:
    """Apart for every Accept, as one address gives compressed pixels and others."""
    response["Cache-Control"] = CACHE if lasts else CACHE_NOTHING
    response["Vary"] = "Accept"
    return response


def _told(header: Header) -> dict[str, Any]:
    return part10.told(
        header.dicom_json, pseudonym=header.pseudonym, study_number=header.study_number
    )


def _file(
    header: Header, slices: list[Slice], *, transfer_syntax: str
) -> tuple[str, Iterator[bytes]]:
    """A DICOM file with its Content-Type; what JPEG-LS cannot hold is uncompressed, and says so."""
    if transfer_syntax != NATIVE and not _can_be_small(slices):
        transfer_syntax = NATIVE
    contents = _frames(slices, transfer_syntax=transfer_syntax)
    file = part10.file(
        _told(header), transfer_syntax=transfer_syntax, frames=contents, count=len(slices)
    )
    return f"{DICOM};transfer-syntax={transfer_syntax}", file


def _as_it_is(reference: Reference) -> tuple[Form, ...]:
    """A reference is had in the transfer syntax that it has, and in no other."""
    syntax = reference.transfer_syntax
    return (Form(DICOM, syntax, is_multipart=True), Form(DICOM, syntax))


def _reference_file(header: Header, reference: Reference) -> tuple[str, Iterator[bytes]]:
    key, syntax = reference.pixels_key, reference.transfer_syntax
    file = part10.reference_file(
        _told(header),
        transfer_syntax=syntax,
        pixels=reference.pixels,
        size=(storage.size_of(key) or 0) if key else 0,
        content=storage.chunks_of(key) if key else iter(()),
    )
    return f"{DICOM};transfer-syntax={syntax}", file


def _can_be_small(slices: list[Slice]) -> bool:
    """Whether all of them can be had as JPEG-LS; from now on they are kept as such."""
    return all(jpeg_ls_of(slice_) is not None for slice_ in slices)


def _frames(slices: list[Slice], *, transfer_syntax: str) -> Iterator[bytes]:
    for slice_ in slices:
        if transfer_syntax == NATIVE:
            yield bytes(pixels_of(slice_).tobytes())
        else:
            compressed = jpeg_ls_of(slice_)
            assert compressed is not None, "asked for only where it can be had"
            yield compressed


def _with_bulk_data(told: dict[str, Any], root: str) -> dict[str, Any]:
    """With the address of its pixels in their place."""
    study, series, sop = (told[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    address = f"{root}/studies/{study}/series/{series}/instances/{sop}/bulkdata/{part10.PIXEL_DATA}"
    return told | {
        part10.PIXEL_DATA: {"vr": part10.pixel_data_vr(told), "BulkDataURI": address},
    }


def _json_array(items: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """In pieces that are worth sending."""
    ahead, size = ["["], 0
    for number, item in enumerate(items):
        ahead.append(("," if number else "") + json.dumps(item, separators=(",", ":")))
        size += len(ahead[-1])
        if size > _JSON_AT_ONCE_BYTES:
            yield "".join(ahead).encode()
            ahead, size = [], 0
    yield ("".join(ahead) + "]").encode()


def _picture(
    request: HttpRequest,
    shown: Shown,
    named: tuple[str, str, str, int],
    *,
    most: tuple[int, int] | None,
) -> HttpResponse:
    form = choose(_accept(request), PICTURES)
    study_uid, series_uid, sop_uid, number = named
    slice_ = selectors.slice_in(
        shown, study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid, frame=number
    )
    most = _viewport(request) or most
    quality = _whole_numbers(request, "quality", count=1, most=100) or (rendering.JPEG_QUALITY,)
    window = _window(request)
    pixels = pixels_of(slice_)
    if pixels.ndim == 2:
        series = slice_.series
        centre, width = window or (series.window_centre or 0.0, series.window_width or 1.0)
        values = rendering.Shown(slice_.slope, slice_.intercept, centre, width, slice_.inverted)
        pixels = rendering.grey(pixels, values)
    content = rendering.picture(
        pixels.astype(np.uint8), media_type=form.media_type, most=most, quality=quality[0]
    )
    return _kept(HttpResponse(content, content_type=form.media_type), lasts=_last([slice_]))


def _viewport(request: HttpRequest) -> tuple[int, int] | None:
    numbers = _whole_numbers(request, "viewport", count=2, most=_MAX_PICTURE_SIDE)
    return (numbers[0], numbers[1]) if numbers else None


def _window(request: HttpRequest) -> tuple[float, float] | None:
    """``window=centre,width,linear`` (PS3.18 8.3.5.1.4); of functions only the linear one."""
    asked = request.GET.get("window")
    if not asked:
        return None
    centre, width, function = [*asked.split(","), "", ""][:3]
    try:
        numbers = (float(centre), float(width))
    except ValueError:
        numbers = (0.0, 0.0)
    if not (numbers[1] >= 1 and all(map(math.isfinite, numbers)) and function in ("", "linear")):
        raise Malformed("A window is centre,width,linear, the width at least 1.")
    return numbers


def _whole_numbers(
    request: HttpRequest, name: str, *, count: int, most: int
) -> tuple[int, ...] | None:
    asked = request.GET.get(name)
    if not asked:
        return None
    words = asked.split(",")
    numbers = tuple(int(word) for word in words if _NUMBER.fullmatch(word))
    if len(words) == len(numbers) == count and all(1 <= number <= most for number in numbers):
        return numbers
    raise Malformed(f"{name} is {count} whole number(s) from 1 to {most}, with commas between.")


def _numbers(words: str) -> list[int]:
    """Frames' numbers of an address."""
    numbers = [int(word) for word in words.split(",") if _NUMBER.fullmatch(word)]
    if len(numbers) != words.count(",") + 1 or max(numbers) > MAX_FRAMES:
        raise Malformed("An address names frames by their numbers, with commas between them.")
    return numbers
