"""Who may change what everybody works with."""

from __future__ import annotations

from delineate.accounts.models import User
from delineate.errors import NotAllowed


def require_administrator(user: User | None) -> None:
    """NotAllowed for everybody but administrators; None is whoever administers the machine."""
    if user is not None and not (user.is_active and user.is_superuser):
        raise NotAllowed(
            "Only an administrator of this installation may see and change its models."
        )
