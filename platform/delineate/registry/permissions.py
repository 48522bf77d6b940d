"""Who may change what everybody works with."""

from __future__ import annotations

from delineate.accounts.models import User
from delineate.accounts.permissions import require_all_projects
from delineate.errors import NotAllowed


def require_administrator(user: User | None) -> None:
    """NotAllowed for everybody but administrators, and for their tokens for one project.

    None is whoever administers the machine.
    """
    if user is not None and not (user.is_active and user.is_superuser):
        raise NotAllowed(
            "Only an administrator of this installation may see and change its models."
        )
    if user is not None:
        require_all_projects(user)
