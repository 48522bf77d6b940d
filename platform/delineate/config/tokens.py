"""Requests by API token, at /api/ and /dicomweb/: one place that says who asks, and how far.

`Authorization: Bearer dlt_…`, or Basic with the token as the password, because many DICOM clients
know nothing else. The token decides even where a session's cookie comes with it. No CSRF token is
needed then: a browser never adds Bearer by itself. It does add Basic, once somebody has typed that
into its own window, also to what another site makes it send; what a browser sends with Basic is
therefore checked as ever. WebSockets never come here; they are for pages with a session.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final, NamedTuple

from django.http import HttpRequest, HttpResponse

from delineate.accounts.api import address_of
from delineate.accounts.models import User
from delineate.accounts.tokens import user_by_token
from delineate.config.http import answer
from delineate.errors import DelineateError, NotAllowed

PLACES: Final = ("/api/", "/dicomweb/")
READS: Final = ("GET", "HEAD", "OPTIONS")


class ApiTokens:
    """Middleware after Django's own for sessions, whose user it replaces."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(PLACES):
            return self.get_response(request)
        return _with_challenge(request, self._answer(request))

    def _answer(self, request: HttpRequest) -> HttpResponse:
        given = _given_in(request.headers.get("Authorization", ""))
        if given is not None:
            try:
                user = user_by_token(given.secret, address=address_of(request))
                _require_reach(user, request)
            except DelineateError as error:
                return answer(error)
            _act_as(user, request, given)
        return self.get_response(request)


class Given(NamedTuple):
    """What came in an Authorization header; an empty secret when that could not be read."""

    scheme: str
    secret: str


def _given_in(header: str) -> Given | None:
    scheme, _, value = header.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return Given("bearer", value.strip())
        case "basic":
            try:
                # Latin-1 reads every byte: the user name does not matter, the token says who it is.
                pair = base64.b64decode(value.strip(), validate=True).decode("latin-1")
            except binascii.Error:
                pair = ""
            return Given("basic", pair.partition(":")[2])
        case _:
            return None


def _require_reach(user: User, request: HttpRequest) -> None:
    # By method and not in each service: a new route cannot forget it.
    if user.token is not None and user.token.read_only and request.method not in READS:
        raise NotAllowed("This API token is for reading only.", code="token_read_only")


def _act_as(user: User, request: HttpRequest, given: Given) -> None:
    request.user = user
    request.by_token = True  # type: ignore[attr-defined]
    # Browsers name the origin of whatever changes something; other clients have none.
    if given.scheme == "bearer" or "Origin" not in request.headers:
        # Django's own switch, which ninja's check for sessions heeds as well.
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]


def _with_challenge(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Say in every 401 how to come (RFC 9110 11.6.1); many clients wait for that word."""
    if response.status_code == 401:
        challenge = 'Bearer realm="Delineate"'
        # Browsers with one of our pages bring a cookie: to them Basic would open a window of the
        # browser's own, over a page that knows how to sign in.
        if request.path.startswith("/dicomweb/") and not request.COOKIES:
            challenge = f'Basic realm="Delineate", charset="UTF-8", {challenge}'
        response.headers["WWW-Authenticate"] = challenge
    return response
