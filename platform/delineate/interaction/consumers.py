"""The workspace's socket, ``/ws/tasks/<task id>``; its messages are protocol.py's.

One prompt is in flight, the latest waits and takes the place of one that waited before. Operations
are applied strictly in the order they came, beside a prompt in flight. Whatever is wrong with a
message, the session goes on; close codes: 4401 not signed in, 4404 not a member, or no longer one,
4409 nothing could answer (no model), 4423 the series is in quarantine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Collection
from typing import Any, Final
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from pydantic import BaseModel, ValidationError

from delineate.accounts.models import User
from delineate.annotation.services import StaleBase
from delineate.errors import DelineateError, NotFound
from delineate.interaction import services
from delineate.interaction.protocol import (
    Changed,
    Operation,
    Prepare,
    Prepared,
    Preparing,
    Prompt,
    Refused,
    Welcome,
    from_browser,
)
from delineate.interaction.services import Session
from delineate.live import group_of
from delineate.projects.consumers import NOT_FOUND, NOT_SIGNED_IN
from delineate.studies.selectors import InQuarantine

logger = logging.getLogger(__name__)

NO_MODEL: Final = 4409
IN_QUARANTINE: Final = 4423
# A mask of 4096 x 4096 drawn as dust would be larger; a hand does not draw that.
LONGEST_MESSAGE: Final = 2 * 1024**2

_NOTICES: Final = {
    "labels": "labels",
    "members": "membership",
}


class TaskConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """One open workspace."""

    session: Session | None = None

    async def connect(self) -> None:
        """Join the project's notices and welcome a member."""
        # A close code reaches the browser only on an accepted socket.
        await self.accept()
        user = self.scope["user"]
        if not user.is_authenticated:
            await self.close(NOT_SIGNED_IN)
            return
        task_id: UUID = self.scope["url_route"]["kwargs"]["task_id"]
        try:
            session = await database_sync_to_async(services.open_session)(user, task_id)
        except NotFound:
            await self.close(NOT_FOUND)
            return
        except InQuarantine:
            await self.close(IN_QUARANTINE)
            return
        except DelineateError:
            await self.close(NO_MODEL)
            return
        await self.channel_layer.group_add(group_of(session.project_id), self.channel_name)
        self.session = session
        self._in_flight: asyncio.Task[None] | None = None
        self._waiting: Prompt | None = None
        # Of prompts whose slice is being prepared, by request id.
        self._preparing: dict[str, UUID] = {}
        self._operations: asyncio.Queue[Operation] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write_in_order(), name="draft operations")
        self._others: set[asyncio.Task[None]] = set()
        await self._say(
            Welcome(model_digest=session.model_digest, may_annotate=session.may_annotate)
        )

    async def disconnect(self, _code: int) -> None:
        """Stop what nobody waits for any more; an operation under way ends in its thread."""
        if self.session is None:
            return
        await self.channel_layer.group_discard(group_of(self.session.project_id), self.channel_name)
        for task in (self._writer, self._in_flight, *self._others):
            if task is not None:
                task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message from the browser."""
        if self.session is None:
            return
        try:
            message = _parse(text_data)
        except ValueError as error:
            await self._say(Refused(code="malformed_message", message=str(error)))
            return
        match message:
            case Prompt():
                await self._offer(message)
            case Operation():
                self._operations.put_nowait(message)
            case Prepare():
                self._start(self._prepare(message))

    async def notice(self, message: dict[str, Any]) -> None:
        """A notice of the project's group."""
        session, notice = self.session, message["notice"]
        if session is None:
            return
        what, object_id, data = notice["what"], notice["id"], notice["data"]
        if what == "encoding" and object_id == str(session.series_id):
            await self._tell_prepared(tuple(map(UUID, data["slice_ids"])))
            await self._tell_failed(set(map(UUID, data["failed_ids"])))
        elif what in ("task", "revisions") and object_id == str(session.task_id):
            await self._say(Changed(what=what))
        elif what == "study_deleted" and object_id == str(session.study_id):
            await self._say(Changed(what="study_deleted"))
        elif what in _NOTICES and await self._renew():
            await self._say(Changed.model_validate({"what": _NOTICES[what]}))

    async def _tell_prepared(self, slice_ids: tuple[UUID, ...]) -> None:
        for request_id in self._preparing_any_of(slice_ids):
            del self._preparing[request_id]
        if slice_ids:
            await self._say(Prepared(slice_ids=slice_ids))

    async def _tell_failed(self, slice_ids: set[UUID]) -> None:
        """Whoever waits for a slice that will not be prepared would wait for ever."""
        assert self.session is not None, "notices come to open sessions"
        for request_id in self._preparing_any_of(slice_ids):
            failure = await database_sync_to_async(services.encoding_failure)(
                self.session, self._preparing[request_id]
            )
            if failure is not None and self._preparing.pop(request_id, None) is not None:
                await self._say(_refused(failure).model_copy(update={"request_id": request_id}))

    def _preparing_any_of(self, slice_ids: Collection[UUID]) -> list[str]:
        return [asked for asked, slice_id in self._preparing.items() if slice_id in slice_ids]

    async def _renew(self) -> bool:
        """Look anew who may do what; False when the door was closed.

        The model stays the one that the session began with.
        """
        assert self.session is not None, "notices come to open sessions"
        user_id, task_id = self.session.user_id, self.session.task_id
        try:
            renewed = await database_sync_to_async(_reopen)(user_id, task_id)
        except NotFound:
            await self.close(NOT_FOUND)
            return False
        except InQuarantine:
            await self.close(IN_QUARANTINE)
            return False
        except DelineateError:
            return True
        self.session.may_annotate = renewed.may_annotate
        return True

    async def _offer(self, prompt: Prompt) -> None:
        if self._in_flight is not None and not self._in_flight.done():
            if self._waiting is not None:
                await self._say(
                    Refused(
                        code="superseded",
                        message="A newer prompt took this one's place.",
                        request_id=self._waiting.request_id,
                    )
                )
            self._waiting = prompt
            return
        self._in_flight = asyncio.create_task(self._segment(prompt), name="prompt")

    async def _segment(self, prompt: Prompt | None) -> None:
        while prompt is not None:
            assert self.session is not None, "prompts come from open sessions"
            # Before it is known, so that no notice comes too early.
            self._preparing[prompt.request_id] = prompt.slice_id
            answer = await self._answer(
                services.segment(self.session, prompt), request_id=prompt.request_id
            )
            if not isinstance(answer, Preparing):
                self._preparing.pop(prompt.request_id, None)
            prompt, self._waiting = self._waiting, None

    async def _write_in_order(self) -> None:
        while True:
            operation = await self._operations.get()
            assert self.session is not None, "operations come from open sessions"
            await self._answer(
                database_sync_to_async(services.change_draft)(self.session, operation),
                client_id=operation.client_id,
                sequence=operation.sequence,
            )

    async def _prepare(self, message: Prepare) -> None:
        assert self.session is not None, "messages come from open sessions"
        try:
            await database_sync_to_async(services.prepare)(self.session, message.slice_ids)
        except DelineateError as error:
            await self._say(_refused(error))

    async def _answer(
        self,
        work: Awaitable[BaseModel],
        *,
        request_id: str | None = None,
        client_id: UUID | None = None,
        sequence: int | None = None,
    ) -> BaseModel:
        """Say and return what came of it; nothing that goes wrong ends the session."""
        try:
            answer = await work
        except DelineateError as error:
            answer = _refused(error)
        except Exception:
            logger.exception("A message of the workspace failed")
            answer = Refused(
                code="internal", message="Something went wrong in the server; it has been noted."
            )
        if isinstance(answer, Refused):
            answer = answer.model_copy(
                update={"request_id": request_id, "client_id": client_id, "sequence": sequence}
            )
        await self._say(answer)
        return answer

    async def _say(self, message: BaseModel) -> None:
        with contextlib.suppress(RuntimeError):  # the socket has closed meanwhile
            await self.send(text_data=message.model_dump_json())

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)


def _parse(text: str | None) -> Prompt | Operation | Prepare:
    if text is None:
        raise ValueError("The message is not text.")
    if len(text) > LONGEST_MESSAGE:
        raise ValueError("The message is longer than 2 MiB.")
    try:
        return from_browser.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"The message is not understood ({where or 'JSON'}: {first['msg']})."
        ) from (error)


def _refused(error: DelineateError) -> Refused:
    if isinstance(error, StaleBase):
        return Refused(
            code=error.code,
            message=error.sentence,
            current=error.current,
            version=error.version,
        )
    return Refused(code=error.code, message=error.sentence)


def _reopen(user_id: int, task_id: UUID) -> Session:
    # The account is read anew: it may have been closed since the socket was opened.
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None:
        raise NotFound("The account has been closed.")
    return services.open_session(user, task_id)
