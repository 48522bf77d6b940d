"""Streams leave in pieces, as the web process sends them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from delineate.config.streaming import PIECE_BYTES, StreamInPieces


@pytest.fixture
def request_of_the_web_process() -> ASGIRequest:
    """What the ASGI handler gives to the middleware."""
    return AsyncRequestFactory().get("/")


async def test_a_stream_is_read_only_as_far_as_it_is_sent(request_of_the_web_process):
    read = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            read.append(number)
            yield b"%d" % number

    middleware = StreamInPieces(lambda _request: StreamingHttpResponse(pieces()))
    response = middleware(request_of_the_web_process)
    assert isinstance(response, StreamingHttpResponse)
    sent = aiter(response)
    assert await anext(sent) == b"0"
    assert read == [0]
    assert [piece async for piece in sent] == [b"1", b"2"]


async def test_a_file_is_sent_whole_and_closed(request_of_the_web_process, tmp_path):
    content = b"x" * (2 * PIECE_BYTES + 1)
    (tmp_path / "file").write_bytes(content)
    file = (tmp_path / "file").open("rb")
    response = StreamInPieces(lambda _request: FileResponse(file))(request_of_the_web_process)
    assert isinstance(response, FileResponse)
    pieces = [piece async for piece in response]
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 1]
    response.close()
    assert file.closed


def test_outside_the_web_process_streams_stay_as_they_are():
    middleware = StreamInPieces(lambda _request: StreamingHttpResponse([b"a", b"b"]))
    response = middleware(RequestFactory().get("/"))
    assert isinstance(response, StreamingHttpResponse)
    assert list(response) == [b"a", b"b"]
