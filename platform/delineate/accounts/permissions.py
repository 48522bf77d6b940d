"""Who asks, and what a token may not do although the person it acts as may."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from delineate.accounts.models import User
from delineate.errors import NotAllowed


def user_of(request: HttpRequest) -> User:
    """Who asks; for routes behind a session, which are all but the way in."""
    assert isinstance(request.user, User), "every route wants a session"
    return request.user


def require_in_person(user: User | AnonymousUser) -> None:
    """NotAllowed ``session_needed`` for a token: one that leaked must not become more."""
    if isinstance(user, User) and user.token is not None:
        raise NotAllowed(
            "This cannot be done with an API token: sign in on the page.", code="session_needed"
        )


def require_all_projects(user: User) -> None:
    """NotAllowed ``token_narrowed`` for a token that reaches one project only."""
    if user.only_project_id is not None:
        raise NotAllowed("This API token is for one project only.", code="token_narrowed")
