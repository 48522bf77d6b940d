"""The HTTP API as one object, and the one place where errors become HTTP answers."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import HttpBearer, SessionAuth

from delineate.errors import DelineateError, NotFound, NotSignedIn

logger = logging.getLogger(__name__)


def new_api() -> NinjaAPI:
    """An API whose every route wants an API token, or a session and a CSRF token, unless it says
    otherwise.
    """
    api = NinjaAPI(
        title="Delineate",
        version="1",
        auth=[ApiTokenAuth(), SessionAuth()],
        docs_url="/docs",
        openapi_url="/openapi.json",
        urls_namespace="api",
    )
    # Ninja's types allow classes of errors; what is raised is always one of their instances.
    for error_type, translate in _TRANSLATIONS:
        api.add_exception_handler(error_type, translate)  # type: ignore[arg-type]
    return api


class ApiTokenAuth(HttpBearer):
    """By a token that config/tokens.py has found good; makes the API's description name that way.

    A token given as Basic needs no more than its user, which SessionAuth looks at.
    """

    openapi_description = "An API token, made on the page: `Authorization: Bearer dlt_…`"

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        """The token's user, or None: then it is the session's turn."""
        return request.user if getattr(request, "by_token", False) else None


def answer(error: DelineateError) -> HttpResponse:
    """The error as every client reads it: ``{"error": {"code", "message", "data"}}``."""
    return _answer(error.status, error.as_dict())


def no_such_address(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's 404 for addresses that no route answers."""
    return _no_such_object(request, Http404())


def went_wrong(_request: HttpRequest) -> HttpResponse:
    """Django's 500 for what went wrong outside the API; Django has logged it."""
    return _answer(500, _INTERNAL)


def _ours(_request: HttpRequest, error: DelineateError) -> HttpResponse:
    return answer(error)


def _not_signed_in(_request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    return answer(NotSignedIn("Sign in first."))


def _no_such_object(_request: HttpRequest, _error: Http404) -> HttpResponse:
    return answer(NotFound("There is nothing at this address."))


def _invalid(_request: HttpRequest, error: ValidationError) -> HttpResponse:
    fields = [
        {"field": ".".join(str(part) for part in each["loc"]), "message": each["msg"]}
        for each in error.errors
    ]
    sentence = "; ".join(f"{each['field']}: {each['message']}" for each in fields)
    return _answer(
        422,
        {
            "code": "invalid",
            "message": f"The request is not as it should be ({sentence}).",
            "data": {"fields": fields},
        },
    )


def _too_large(_request: HttpRequest, _error: RequestDataTooBig) -> HttpResponse:
    sentence = "What was sent is larger than it may be; files go in as uploads."
    return _answer(413, {"code": "too_large", "message": sentence, "data": {}})


def _of_ninja(_request: HttpRequest, error: HttpError) -> HttpResponse:
    if error.status_code == 403:
        code, sentence = "csrf_failed", "The page is out of date: reload it and try again."
    else:
        code, sentence = "malformed", "The request could not be read."
    return _answer(error.status_code, {"code": code, "message": sentence, "data": {}})


def _unexpected(request: HttpRequest, error: Exception) -> HttpResponse:
    # What went wrong may quote what was sent: it goes to the log, never to the client.
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return _answer(500, _INTERNAL)


def _answer(status: int, error: dict[str, Any]) -> HttpResponse:
    return JsonResponse({"error": error}, status=status)


_INTERNAL = {
    "code": "internal",
    "message": "Something went wrong in the server; its log says what.",
    "data": {},
}
_TRANSLATIONS = (
    (DelineateError, _ours),
    (AuthenticationError, _not_signed_in),
    (Http404, _no_such_object),
    (ValidationError, _invalid),
    (RequestDataTooBig, _too_large),
    (HttpError, _of_ninja),
    (Exception, _unexpected),
)
