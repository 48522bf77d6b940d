"""The addresses that are both for looking and for storing."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from delineate.studies.dicomweb import qido, stow, wado


@csrf_exempt  # stow judges it, where no token speaks for the request
@require_http_methods(["GET", "POST"])
def studies(request: HttpRequest, project_id: UUID) -> HttpResponseBase:
    """Search the project's studies, or store instances."""
    if request.method == "POST":
        return stow.store(request, project_id)
    return qido.studies(request, project_id)


@csrf_exempt
@require_http_methods(["GET", "POST"])
def study(request: HttpRequest, project_id: UUID, study_uid: str) -> HttpResponseBase:
    """A study's files, or store more of them."""
    if request.method == "POST":
        return stow.store(request, project_id, study_uid=study_uid)
    return wado.retrieve(request, project_id, study_uid=study_uid)
