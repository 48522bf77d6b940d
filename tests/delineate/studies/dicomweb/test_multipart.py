"""Parts in and out, however the stream is cut into pieces."""

from __future__ import annotations

import email
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.studies.dicomweb.multipart import Malformed, parts, written


def read_in_pieces(body: bytes, *, size: int):
    """Reads a body as a network gives it: never as much as is asked for."""
    stream = io.BytesIO(body)
    return lambda most: stream.read(min(size, most))


@given(
    st.lists(st.tuples(st.sampled_from(["a/b", "a/b;c=d"]), st.binary(max_size=200)), min_size=1),
    st.integers(1, 90),
)
def test_what_is_written_is_read(contents, size):
    answer = written(
        ((kind, iter([content[:7], content[7:]])) for kind, content in contents), media_type="a/b"
    )
    boundary = answer.content_type.partition("boundary=")[2]
    read = read_in_pieces(b"".join(answer.pieces), size=size)
    found = [
        (part.headers["content-type"], b"".join(part.content))
        for part in parts(read, boundary=boundary)
    ]
    assert found == contents


def test_other_readers_understand_it():
    answer = written(iter([("x/one", iter([b"1"])), ("x/two", iter([b"2"]))]), media_type="x/one")
    head = f"Content-Type: {answer.content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + b"".join(answer.pieces))
    assert message.get_param("type") == "x/one"
    read = [(each.get_content_type(), each.get_payload()) for each in message.walk()]
    assert read[1:] == [("x/one", "1"), ("x/two", "2")]


def test_a_part_that_is_not_read_is_passed_over():
    body = b"before\r\n--b  \r\nX: 1\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\nafter"
    found = parts(read_in_pieces(body, size=5), boundary="b")
    assert next(found).headers == {"x": "1"}
    second = next(found)
    assert (second.headers, b"".join(second.content)) == ({}, b"two")
    assert list(found) == []


@pytest.mark.parametrize("count", range(60))
def test_the_first_content_begins_where_values_of_four_bytes_may(count):
    answer = written(iter([("x" * count, iter([b"content"]))]), media_type="x")
    assert b"".join(answer.pieces).index(b"content") % 4 == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"--b",
        b"--b\r\n",
        b"--b\r\nX: 1\r\n\r\n",
        b"--b\r\nX: 1\r\n\r\ncontent",
        b"--b\r\nX: 1\r\n\r\ncontent\r\n--b",
        b"--bX\r\n\r\ncontent\r\n--b--",
        b"--b\r\nX: " + b"1" * 20_000 + b"\r\n\r\ncontent\r\n--b--",
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_ends_too_early_or_never_is_malformed(body, size):
    found = parts(read_in_pieces(body, size=size), boundary="b")
    with pytest.raises(Malformed):
        [b"".join(part.content) for part in found]


@pytest.mark.parametrize("boundary", ["", "x" * 201, "ä"])
def test_a_boundary_is_there_and_short(boundary):
    with pytest.raises(Malformed, match="names no boundary"):
        next(parts(read_in_pieces(b"", size=1), boundary=boundary))
