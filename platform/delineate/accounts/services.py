"""Accounts: signing in and out, making them, changing passwords."""

from __future__ import annotations

from django.contrib.auth import authenticate
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from delineate.accounts import guessing
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict, DelineateError, Invalid, NotSignedIn, TooMany


def sign_in(username: str, password: str, *, address: str) -> User:
    """The account these belong to.

    Raises NotSignedIn ``wrong_credentials``, with one sentence for unknown users and wrong
    passwords, or TooMany after too many failures for this user name from this address.
    """
    with transaction.atomic():
        outcome = _try_password(username, password, address=address)
        if isinstance(outcome, User):
            audit.signed_in(outcome)
    # Raised only now, when the failure that was written down is committed.
    if isinstance(outcome, DelineateError):
        raise outcome
    return outcome


def sign_out(user: User) -> None:
    """Record that ``user`` ends a session."""
    with transaction.atomic():
        audit.signed_out(user)


def create_user(
    username: str,
    *,
    password: str,
    full_name: str = "",
    is_superuser: bool = False,
    by: User | None = None,
) -> User:
    """A new account; ``by`` None is whoever administers the machine.

    Raises Invalid ``username_invalid`` or ``password_weak``, Conflict ``username_taken``.
    """
    user = User(username=username, full_name=full_name.strip(), is_superuser=is_superuser)
    _check_name(user)
    _check_password(password, user=user)
    user.set_password(password)
    with transaction.atomic():
        guessing.lock(f"username {username.lower()}")
        if User.objects.filter(username__iexact=username).exists():
            raise Conflict(f"There is a user {username} already.", code="username_taken")
        user.save(force_insert=True)
        audit.user_created(username, by=by, is_superuser=is_superuser)
    return user


def change_password(user: User, *, current: str, new: str, address: str) -> User:
    """Replace one's own password, which ends one's other sessions.

    Raises Invalid ``wrong_password`` or ``password_weak``, or TooMany when the current one was
    guessed wrong too often.
    """
    _check_password(new, user=user)
    with transaction.atomic():
        outcome = _try_password(user.username, current, address=address)
        if isinstance(outcome, User):
            outcome.set_password(new)
            outcome.save(update_fields=["password"])
            audit.password_changed(user.username, by=user)
    if isinstance(outcome, NotSignedIn):
        raise Invalid("The current password is not right.", code="wrong_password")
    if isinstance(outcome, DelineateError):
        raise outcome
    return outcome


def set_password(user: User, *, new: str) -> None:
    """Replace somebody's password without knowing it, for who administers the machine."""
    _check_password(new, user=user)
    with transaction.atomic():
        user = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        user.set_password(new)
        user.save(update_fields=["password"])
        audit.password_changed(user.username, by=None)


def _try_password(username: str, password: str, *, address: str) -> User | DelineateError:
    """The account, or what to raise once the failure is committed."""
    key = guessing.key_of(username.lower(), address=address)
    if guessing.is_exhausted(key):
        return TooMany("There were too many failed sign-ins; try again in five minutes.")
    user = authenticate(username=username, password=password)
    if not isinstance(user, User):
        guessing.note_failure(key)
        known = User.objects.filter(username=username).exists()
        audit.sign_in_failed(username if known else None, address=address)
        return NotSignedIn("The user name or the password is not right.", code="wrong_credentials")
    guessing.forget_failures(key)
    return user


def _check_name(user: User) -> None:
    try:
        user.clean_fields(exclude=["password"])
    except ValidationError as error:
        sentence = " ".join(error.messages)
        raise Invalid(f"The user cannot be made: {sentence}", code="username_invalid") from error


def _check_password(password: str, *, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages), code="password_weak") from error
