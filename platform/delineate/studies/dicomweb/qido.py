"""QIDO-RS (PS3.18 10.6): searches for studies, series and instances, answered as DICOM JSON.

Answers hold what tables 10.6.3-3 to -5 want, and of headers what was kept; what is not known is
there without a value. UIDs and patients are ours: keyed UIDs and pseudonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET
from pydicom.datadict import dictionary_VR

from delineate.studies import searching
from delineate.studies.dicomweb.entrance import of_project
from delineate.studies.dicomweb.negotiation import DICOM_JSON, JSON, Form, choose
from delineate.studies.matching import Search, parse
from delineate.studies.searching import Found
from delineate.studies.selectors import Shown

_FORMS: Final = (Form(DICOM_JSON), Form(JSON))
STUDY_UID: Final = "0020000D"
SERIES_UID: Final = "0020000E"
SOP_UID: Final = "00080018"
# Returned with or without a value: date, time, accession number, referring physician, birth date,
# sex; of series the performed procedure's; of instances the number.
_OF_STUDIES: Final = ("00080020", "00080030", "00080050", "00080090", "00100030", "00100040")
_OF_SERIES: Final = ("00400244", "00400245")
_OF_INSTANCES: Final = ("00200013",)
_AVAILABILITY: Final = {"vr": "CS", "Value": ["ONLINE"]}
# Of objects of one frame its absence says as much.
_NUMBER_OF_FRAMES: Final = "00280008"


@require_GET
@of_project
def studies(request: HttpRequest, shown: Shown) -> HttpResponseBase:
    """Studies of the project."""
    search = _search(request)
    return _answer(request, shown, search, searching.studies_found(shown, search), _OF_STUDIES)


@require_GET
@of_project
def series(request: HttpRequest, shown: Shown, study_uid: str | None = None) -> HttpResponseBase:
    """Series of the project, or of a study."""
    search = _search(request)
    found = searching.series_found(shown, search, study_uid=study_uid)
    return _answer(request, shown, search, found, _OF_SERIES)


@require_GET
@of_project
def instances(
    request: HttpRequest,
    shown: Shown,
    study_uid: str | None = None,
    series_uid: str | None = None,
) -> HttpResponseBase:
    """Instances of the project, of a study, or of a series."""
    search = _search(request)
    found = searching.instances_found(shown, search, study_uid=study_uid, series_uid=series_uid)
    return _answer(request, shown, search, found, _OF_INSTANCES)


def _search(request: HttpRequest) -> Search:
    """In the order of the query string: a parameter may be there several times."""
    return parse((name, value) for name, values in request.GET.lists() for value in values)


def _answer(
    request: HttpRequest,
    shown: Shown,
    search: Search,
    found: Found,
    always: tuple[str, ...],
) -> HttpResponse:
    form = choose(str(request.GET.get("accept") or request.headers.get("Accept") or "*/*"), _FORMS)
    root = request.build_absolute_uri(f"/dicomweb/{shown.project.id}/studies")
    told = [_told(row, root, always) for row in found.rows]
    response = JsonResponse(told, safe=False, content_type=form.media_type)
    if warnings := _warnings(search, found):
        response["Warning"] = ", ".join(f'299 Delineate "{each}"' for each in warnings)
    return response


def _told(row: Mapping[str, Any], root: str, always: tuple[str, ...]) -> dict[str, Any]:
    told: dict[str, Any] = {tag: {"vr": _vr(tag)} for tag in always}
    told |= {tag: _element(tag, value) for tag, value in row.items() if value is not None}
    if SOP_UID in row and row.get(_NUMBER_OF_FRAMES) == 1:
        del told[_NUMBER_OF_FRAMES]
    address = f"{root}/{row[STUDY_UID]}"
    if SERIES_UID in row:
        address += f"/series/{row[SERIES_UID]}"
    if SOP_UID in row:
        address += f"/instances/{row[SOP_UID]}"
    told["00080056"] = _AVAILABILITY
    told["00081190"] = {"vr": "UR", "Value": [address]}
    return dict(sorted(told.items()))


def _element(tag: str, value: Any) -> dict[str, Any]:
    """An element of a header as it is, or a value with the VR of its tag."""
    if isinstance(value, dict):
        return value
    vr = _vr(tag)
    values = value if isinstance(value, list) else [value]
    if vr == "PN":
        values = [{"Alphabetic": each} for each in values]
    elif vr == "SH":
        values = [str(each) for each in values]
    return {"vr": vr, "Value": values}


@cache
def _vr(tag: str) -> str:
    """Asked for every value of a thousand rows."""
    return dictionary_VR(int(tag, 16))


def _warnings(search: Search, found: Found) -> list[str]:
    warnings = []
    if found.remaining:
        warnings.append(f"There are {found.remaining} additional results that can be requested")
    if search.is_fuzzy:
        warnings.append(
            "The fuzzymatching parameter is not supported. "
            "Only literal matching has been performed."
        )
    if search.ignored:
        # Only what can stand in a header.
        names = " ".join(name for name in search.ignored if name.isascii() and name.isalnum())
        warnings.append(f"These parameters are not supported and were left out: {names}".strip())
    return warnings
