"""What the two Celery applications must agree on to meet in one broker."""

from __future__ import annotations

from typing import Any, Final

# Redis serves the lowest number first: each step is a list of its own beside the queue's.
PRIORITY_NOW: Final = 0  # somebody is looking at it
PRIORITY_SOON: Final = 3  # a neighbour of what somebody is looking at
PRIORITY_LATER: Final = 6  # fresh from ingest

# Beyond the time any task takes, so that the broker never hands a living worker's task to a second
# one; a dead worker's job is re-sent by the sweep long before (its row says it is owed).
VISIBILITY_TIMEOUT_S: Final = 6 * 3600


def transport_options(*, socket_timeout_s: float) -> dict[str, Any]:
    """Options of Celery's Redis transport, equal in both applications but for the patience."""
    return {
        "priority_steps": [PRIORITY_NOW, PRIORITY_SOON, PRIORITY_LATER],
        "queue_order_strategy": "priority",
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "socket_keepalive": True,
    }
