"""API tokens: making them, revoking them, and telling whose a secret is.

A secret is 256 random bits behind ``dlt_``, by which scanners for leaked secrets and people know
it. Only its SHA-256 is kept: nobody guesses 256 bits, so a slow hash would only slow every request.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from delineate.accounts import guessing
from delineate.accounts.models import ApiToken, User
from delineate.audit import log as audit
from delineate.errors import Conflict, DelineateError, Invalid, NotFound, NotSignedIn, TooMany

PREFIX: Final = "dlt_"
SECRET_BYTES: Final = 32
NAME_LENGTH: Final = 80
TOKENS_AT_MOST: Final = 50  # per person: more are forgotten ones
DAYS_BY_DEFAULT: Final = 90
DAYS_AT_MOST: Final = 3650
# A client may send thousands of requests a minute; none of them is worth a write of its own.
USE_NOTED_EVERY: Final = timedelta(minutes=1)


class NewToken(NamedTuple):
    """A token with its secret, which can be told only now."""

    token: ApiToken
    secret: str


def make_token(
    user: User,
    *,
    name: str,
    days: int | None = DAYS_BY_DEFAULT,
    project_id: UUID | None = None,
    read_only: bool = False,
    by: User | None,
) -> NewToken:
    """A token that acts as ``user``, for so many days (None: until it is revoked).

    ``project_id``: the only project that it reaches, if ``user`` is a member of it. ``by`` None is
    whoever administers the machine. Raises Invalid ``token_name_invalid`` or
    ``token_days_invalid``, Conflict ``too_many_tokens``.
    """
    name = _name(name)
    now = timezone.now()
    expires_at = _expiry(now, days=days)
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        if len(tokens_of(user)) >= TOKENS_AT_MOST:
            raise Conflict(
                f"{user.username} has {TOKENS_AT_MOST} API tokens already; revoke some first.",
                code="too_many_tokens",
            )
        token = ApiToken.objects.create(
            user=user,
            name=name,
            digest=_digest(secret),
            project_id=project_id,
            read_only=read_only,
            created_at=now,
            expires_at=expires_at,
        )
        audit.token_made(
            token.id,
            user.username,
            by=by,
            name=name,
            project_id=project_id,
            read_only=read_only,
            expires_at=expires_at,
        )
    return NewToken(token, secret)


def tokens_of(user: User) -> Sequence[ApiToken]:
    """The tokens of ``user`` that are not revoked, the newest first."""
    return list(user.tokens.filter(revoked_at=None))


def revoke_token(token_id: UUID, *, of: User, by: User | None) -> None:
    """End a token at once; NotFound when ``of`` has no such token any more."""
    with transaction.atomic():
        token = of.tokens.select_for_update().filter(id=token_id, revoked_at=None).first()
        if token is None:
            raise NotFound("There is no such API token.")
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        audit.token_revoked(token.id, of.username, by=by, name=token.name)


def user_by_token(secret: str, *, address: str) -> User:
    """The account that ``secret`` acts as, which remembers by which token.

    Raises NotSignedIn ``token_invalid`` or ``token_expired``, and TooMany instead after too many
    of those from ``address``. A good token is never held up by bad ones beside it: behind one
    address there may be a whole clinic, and nobody guesses 256 bits.
    """
    now = timezone.now()
    token = ApiToken.objects.select_related("user").filter(digest=_digest(secret)).first()
    refusal = _refusal(token, now=now)
    if refusal is not None:
        raise _count(refusal, token_id=token.id if token else None, address=address)
    assert token is not None, "no token is refused"
    user = token.user
    user.token = token
    _note_use(token, user=user, now=now, address=address)
    return user


def _refusal(token: ApiToken | None, *, now: datetime) -> NotSignedIn | None:
    if token is None or token.revoked_at is not None or not token.user.is_active:
        return NotSignedIn(
            "The API token is not right, or has been revoked. Passwords are not taken here: make "
            "a token on the page.",
            code="token_invalid",
        )
    if token.expires_at is not None and token.expires_at <= now:
        return NotSignedIn("The API token has expired: make a new one.", code="token_expired")
    return None


def _count(refusal: NotSignedIn, *, token_id: UUID | None, address: str) -> DelineateError:
    """What to raise, once the failure is committed."""
    key = guessing.key_of("API token", address=address)  # capitals: no user name's key has any
    with transaction.atomic():
        if guessing.is_exhausted(key):
            return TooMany("There were too many wrong API tokens; try again in five minutes.")
        guessing.note_failure(key)
        audit.token_refused(token_id, address=address)
    return refusal


def _note_use(token: ApiToken, *, user: User, now: datetime, address: str) -> None:
    before = token.last_used_at
    if before is not None and now - before < USE_NOTED_EVERY:
        return
    with transaction.atomic():
        # Of several requests at once, one notes it.
        same = Q(last_used_at=before)
        noted = ApiToken.objects.filter(same, id=token.id).update(last_used_at=now)
        if noted and before is None:
            audit.token_first_used(token.id, by=user, address=address)


def _digest(secret: str) -> str:
    # What is no UTF-8 is no token either, and must not end in an exception.
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise Invalid(
            f"A token's name has 1 to {NAME_LENGTH} printable characters.",
            code="token_name_invalid",
        )
    return name


def _expiry(now: datetime, *, days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 1 <= days <= DAYS_AT_MOST:
        raise Invalid(
            f"A token is good for 1 to {DAYS_AT_MOST} days, or until it is revoked.",
            code="token_days_invalid",
        )
    return now + timedelta(days=days)
