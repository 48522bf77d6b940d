"""Sessions of the browser."""

from __future__ import annotations

from django.contrib.auth import login, logout, update_session_auth_hash
from django.http import HttpRequest
from django.middleware.csrf import get_token
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from ninja.utils import check_csrf
from pydantic import ConfigDict, Field

from delineate.accounts import services
from delineate.accounts.models import User
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


@router.get("/session", response=Me, auth=None)
def get_session(request: HttpRequest) -> User:
    """Who is signed in; 401 for nobody. Sets the CSRF cookie, so a page starts with this."""
    get_token(request)
    if not isinstance(request.user, User):
        raise NotSignedIn("Sign in first.")
    return request.user


@router.post("/session", response=Me, auth=None)
def create_session(request: HttpRequest, credentials: Credentials) -> User:
    """Sign in; 401 wrong_credentials, 429 too_many."""
    if check_csrf(request) is not None:
        raise HttpError(403, "no CSRF token")
    user = services.sign_in(
        credentials.username, credentials.password, address=_address_of(request)
    )
    login(request, user)
    return user


@router.delete("/session", response={204: None})
def delete_session(request: HttpRequest) -> Status[None]:
    """Sign out."""
    services.sign_out(request.user)
    logout(request)
    return Status(204, None)


@router.post("/session/password", response={204: None})
def change_password(request: HttpRequest, change: PasswordChange) -> Status[None]:
    """Change one's own password; other sessions of the account end."""
    assert isinstance(request.user, User)
    user = services.change_password(
        request.user, current=change.current, new=change.new, address=_address_of(request)
    )
    update_session_auth_hash(request, user)
    return Status(204, None)


def _address_of(request: HttpRequest) -> str:
    # Behind a proxy the server is told whom to trust (uvicorn's --forwarded-allow-ips).
    return str(request.META.get("REMOTE_ADDR", ""))
