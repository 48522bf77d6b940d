"""Progress and notices to everybody who has a project's page open.

A notice says that something changed and carries no data that its reader may not have: pages fetch
what they show. It is sent on commit, may be lost, and is never waited for: pages fetch anew when
their socket comes back.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Literal
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

What = Literal[
    "upload",  # state, files_total, files_done
    "studies",
    "study_deleted",
    "subjects",
    "erasure",  # state, studies_done, studies_total
    "encoding",  # study_id, series_id, prepared, total, slice_ids, failed_ids
    "task",  # state
    "revisions",
    "labels",
    "members",
    "project",
    "model",
    "export",  # state, series_done, series_total
    "learning",  # settings or parts have changed
    "run",  # state, stage, step, of_steps, evaluated, to_evaluate
    "promotion",  # state, prepared, total
    "comparison",  # state, done, of
    "ranking",  # state, scored, total
    "quarantine",  # of a series that is blacked out: state, slices_done, slices_total
]
Value = str | int | float | bool | None | list[str]

# Redis away: the act itself has been committed and must not hang on its announcement.
PATIENCE_S = 1.0


def tell(project_id: UUID, what: What, *, id: UUID | str | None = None, **data: Value) -> None:
    """Announce a change to the project's group once the transaction is committed; never raises."""
    notice: dict[str, object] = {
        "kind": "notice",
        "what": what,
        "id": None if id is None else str(id),
        "data": data,
    }
    transaction.on_commit(partial(_send, group_of(project_id), notice))


def group_of(project_id: UUID) -> str:
    """Name of a project's channel group; its messages are {"type": "notice", "notice": {…}}."""
    return f"project.{project_id}"


@async_to_sync
async def _send(group: str, notice: dict[str, object]) -> None:
    layer = get_channel_layer()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await layer.group_send(group, {"type": "notice", "notice": notice})
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("A notice to %s was lost: %s", group, error)
