"""Who may come in, and errors as every client of the server reads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from delineate.config.http import answer
from delineate.errors import DelineateError, NotSignedIn
from delineate.studies.selectors import shown_to

View = Callable[..., HttpResponseBase]


def of_project(view: View) -> View:
    """A view that is given what its reader is shown of a project; members only."""

    @wraps(view)
    def entered(request: HttpRequest, project_id: UUID, **names: object) -> HttpResponseBase:
        try:
            if not request.user.is_authenticated:
                raise NotSignedIn("Sign in first.")
            return view(request, shown_to(request.user, project_id), **names)
        except DelineateError as error:
            return answer(error)

    return entered
