"""A browser's side of a WebSocket, spoken to the server's whole ASGI application in this process.

Channels brings one of its own, which wants an HTTP server installed that we do not use.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.db import connections
from django.test import Client

from delineate.config.asgi import application

ORIGIN = "http://testserver"


class Socket:
    """An open socket at ``path`` with the session of ``client``; use it as ``async with``."""

    def __init__(
        self, path: str, *, client: Client, origin: str = ORIGIN, authorization: str | None = None
    ) -> None:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
        headers = [(b"origin", origin.encode()), (b"cookie", cookies.encode())]
        if authorization is not None:
            headers.append((b"authorization", authorization.encode()))
        scope = {
            "type": "websocket",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "subprotocols": [],
        }
        self._application = ApplicationCommunicator(application, scope)

    async def __aenter__(self) -> Self:
        await self._application.send_input({"type": "websocket.connect"})
        answer = await self._application.receive_output(timeout=10)
        if answer["type"] != "websocket.accept":
            await self.__aexit__(None, None, None)
            raise ConnectionRefusedError(answer)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self._application.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._end()

    async def send(self, message: object) -> None:
        """A JSON message to the server."""
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Any text to the server."""
        await self._application.send_input({"type": "websocket.receive", "text": text})

    async def receive(self, *, timeout_s: float = 10) -> Any:
        """The next JSON message from the server."""
        output = await self._application.receive_output(timeout=timeout_s)
        assert output["type"] == "websocket.send", output
        return json.loads(output["text"])

    async def closed_with(self, *, timeout_s: float = 10) -> int:
        """The code the server closes the socket with."""
        output = await self._application.receive_output(timeout=timeout_s)
        assert output["type"] == "websocket.close", output
        return int(output["code"])

    async def is_silent(self) -> bool:
        """Whether nothing has come for a tenth of a second."""
        return bool(await self._application.receive_nothing(timeout=0.1))

    async def _end(self) -> None:
        await self._application.wait(timeout=10)
        # The server's thread keeps its connection, which would keep the test database in use.
        await sync_to_async(connections.close_all)()
