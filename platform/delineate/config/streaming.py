"""Files leave the web process in pieces.

Under ASGI Django reads a synchronous stream whole, into memory, before it sends the first byte: an
export of gigabytes would end the process. Here every such stream becomes an asynchronous one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, cast

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

PIECE_BYTES: Final = 256 * 1024


class StreamInPieces:
    """Middleware for every streaming answer, static files included."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if isinstance(response, FileResponse):
            response.block_size = PIECE_BYTES
        if (
            isinstance(request, ASGIRequest)
            and isinstance(response, StreamingHttpResponse)
            and not response.is_async
        ):
            response.streaming_content = _pieces(cast(Iterator[bytes], response.streaming_content))
        return response


async def _pieces(stream: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await sync_to_async(_next)(stream)) is not None:
        yield piece


def _next(stream: Iterator[bytes]) -> bytes | None:
    return next(stream, None)
