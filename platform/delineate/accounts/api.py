"""Sessions of the browser, and the API tokens that are made in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.contrib.auth import login, logout, update_session_auth_hash
from django.http import HttpRequest
from django.middleware.csrf import get_token
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from ninja.utils import check_csrf
from pydantic import ConfigDict, Field

from delineate.accounts import services, tokens
from delineate.accounts.models import ApiToken, User
from delineate.accounts.permissions import require_in_person
from delineate.errors import NotSignedIn

router = Router(tags=["accounts"])

NO_NUL = r"^[^\x00]*$"  # PostgreSQL's text cannot hold it, not even to compare with


class Me(Schema):
    """Who is signed in."""

    username: str
    display_name: str
    is_superuser: bool


class Credentials(Schema):
    """What one signs in with."""

    model_config = ConfigDict(extra="forbid")

    username: str = Field(max_length=150, pattern=NO_NUL)
    password: str = Field(max_length=1000)


class PasswordChange(Schema):
    """One's own password, old and new."""

    model_config = ConfigDict(extra="forbid")

    current: str = Field(max_length=1000)
    new: str = Field(max_length=1000)


class TokenIn(Schema):
    """An API token to make: what for, for how many days (null: until it is revoked), how far.

    ``project_id`` narrows it to one of one's projects; ``read_only`` to what changes nothing.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    days: int | None = tokens.DAYS_BY_DEFAULT
    project_id: UUID | None = None
    read_only: bool = False


class TokenOut(Schema):
    """An API token; ``last_used_at`` is right to the minute."""

    id: UUID
    name: str
    project_id: UUID | None
    read_only: bool
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class MadeToken(Schema):
    """A token with its secret, which is told only once."""

    token: TokenOut
    secret: str


@router.get("/session", response=Me, auth=None)
def get_session(request: HttpRequest) -> User:
    """Who is signed in; 401 for nobody. Sets the CSRF cookie, so a page starts with this."""
    get_token(request)
    if not isinstance(request.user, User):
        raise NotSignedIn("Sign in first.")
    return request.user


@router.post("/session", response=Me, auth=None)
def create_session(request: HttpRequest, credentials: Credentials) -> User:
    """Sign in; 401 wrong_credentials, 429 too_many. Never by token."""
    require_in_person(request.user)
    if check_csrf(request) is not None:
        raise HttpError(403, "no CSRF token")
    user = services.sign_in(credentials.username, credentials.password, address=address_of(request))
    login(request, user)
    return user


@router.delete("/session", response={204: None})
def delete_session(request: HttpRequest) -> Status[None]:
    """Sign out; a token is revoked instead."""
    services.sign_out(_in_person(request))
    logout(request)
    return Status(204, None)


@router.post("/session/password", response={204: None})
def change_password(request: HttpRequest, change: PasswordChange) -> Status[None]:
    """Change one's own password; other sessions of the account end, API tokens do not.

    Never by token.
    """
    user = services.change_password(
        _in_person(request), current=change.current, new=change.new, address=address_of(request)
    )
    update_session_auth_hash(request, user)
    return Status(204, None)


@router.get("/session/tokens", response=list[TokenOut])
def list_tokens(request: HttpRequest) -> Sequence[ApiToken]:
    """One's own API tokens, the newest first, without their secrets; never by token."""
    return tokens.tokens_of(_in_person(request))


@router.post("/session/tokens", response={201: MadeToken})
def make_token(request: HttpRequest, new: TokenIn) -> Status[MadeToken]:
    """Make an API token; its secret is in this answer and never again. Never by token.

    409 too_many_tokens; 422 token_name_invalid, token_days_invalid.
    """
    user = _in_person(request)
    made = tokens.make_token(
        user,
        name=new.name,
        days=new.days,
        project_id=new.project_id,
        read_only=new.read_only,
        by=user,
    )
    return Status(201, MadeToken(token=TokenOut.from_orm(made.token), secret=made.secret))


@router.delete("/session/tokens/{token_id}", response={204: None})
def revoke_token(request: HttpRequest, token_id: UUID) -> Status[None]:
    """End one of one's own API tokens at once; never by token."""
    user = _in_person(request)
    tokens.revoke_token(token_id, of=user, by=user)
    return Status(204, None)


def address_of(request: HttpRequest) -> str:
    """Where a request comes from."""
    # Behind a proxy the server is told whom to trust (uvicorn's --forwarded-allow-ips).
    return str(request.META.get("REMOTE_ADDR", ""))


def _in_person(request: HttpRequest) -> User:
    assert isinstance(request.user, User), "every route wants somebody"
    require_in_person(request.user)
    return request.user
