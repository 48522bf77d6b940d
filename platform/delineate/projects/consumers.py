"""The project page's socket, ``/ws/projects/<project id>``: notices from the server, nothing back.

Each message is {"kind": "notice", "what", "id", "data"} (live.py). Close codes: 4401 not signed in,
4404 not a member, or no longer one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from delineate.accounts.models import User
from delineate.errors import NotFound
from delineate.live import group_of
from delineate.projects.selectors import project_for

NOT_SIGNED_IN = 4401
NOT_FOUND = 4404


class ProjectConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """Passes a project's notices on to those of its members who have its page open."""

    async def connect(self) -> None:
        """Join the project's group, if this is a member's session."""
        # A close code reaches the browser only on an accepted socket.
        await self.accept()
        if not self.scope["user"].is_authenticated:
            await self.close(NOT_SIGNED_IN)
            return
        project_id = self.scope["url_route"]["kwargs"]["project_id"]
        # First join, then look: a removal between the two is noticed.
        await self.channel_layer.group_add(group_of(project_id), self.channel_name)
        await self._close_unless_member()

    async def disconnect(self, _code: int) -> None:
        """Leave the group."""
        project_id = self.scope["url_route"]["kwargs"]["project_id"]
        await self.channel_layer.group_discard(group_of(project_id), self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages have nothing to say here."""

    async def notice(self, message: dict[str, Any]) -> None:
        """A notice of the group."""
        if message["notice"]["what"] == "members" and not await self._close_unless_member():
            return
        await self.send_json(message["notice"])

    async def _close_unless_member(self) -> bool:
        project_id = self.scope["url_route"]["kwargs"]["project_id"]
        if await database_sync_to_async(_is_member)(self.scope["user"].pk, project_id):
            return True
        await self.close(NOT_FOUND)
        return False


def _is_member(user_id: int, project_id: UUID) -> bool:
    # The account is read anew: it may have been closed since the socket was opened.
    user = User.objects.filter(pk=user_id).first()
    if user is None:
        return False
    try:
        project_for(user, project_id)
    except NotFound:
        return False
    return True
