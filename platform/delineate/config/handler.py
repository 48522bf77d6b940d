"""Django's ASGI handler for a server all of whose middlewares and views are synchronous."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase

Chain = Callable[[HttpRequest], HttpResponseBase]


class OneThreadHandler(ASGIHandler):
    """A request goes to its thread once, with every middleware and its view.

    Django's own goes there for the middlewares, back to the event loop, and there again for the
    view. What runs in that thread is still the request's own: the database connection that it took
    is given back from there.
    """

    # A frame of 512 x 512 in one message; each wakes the server, which writes it to the socket.
    chunk_size = 1024**2

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=False)
        chain = cast(Chain, vars(self)["_middleware_chain"])
        self._middleware_chain = sync_to_async(chain, thread_sensitive=True)
