"""A blob in parts reads as if it were one object."""

from __future__ import annotations

import io
import random
import zipfile
from itertools import accumulate

import pytest

from delineate import storage
from delineate.errors import NotFound
from delineate.studies.parts import open_blob, part_key
from tests.delineate.studies.files import zipped

KEY = "uploads/some/0"


@pytest.mark.parametrize("sizes", [[1], [5, 5], [1, 2, 3, 400, 1, 65_536, 7]])
def test_any_stretch_of_it_can_be_read(sizes):
    data = random.Random(2).randbytes(sum(sizes))
    _store(data, sizes)
    chance = random.Random(3)
    with open_blob(KEY, part_sizes=sizes) as file:
        assert file.read() == data
        assert file.seek(0, io.SEEK_END) == len(data)
        assert file.read(1) == b""
        for _ in range(200):
            start, size = chance.randrange(len(data) + 2), chance.randrange(len(data) + 2)
            file.seek(start)
            assert file.read(size) == data[start : start + size]
            assert file.tell() == max(start, min(start + size, len(data)))


def test_what_has_no_parts_is_one_object():
    storage.put(KEY, b"whole")
    with open_blob(KEY, part_sizes=[]) as file:
        assert file.read() == b"whole"


def test_a_zip_in_parts_is_opened():
    data = zipped({"a": b"x" * 1000, "b": b"y"})
    sizes = [len(data) - 40, 1, 39]
    _store(data, sizes)
    with open_blob(KEY, part_sizes=sizes) as file, zipfile.ZipFile(file) as opened:
        assert opened.read("a") == b"x" * 1000


def test_a_part_that_is_missing_is_told():
    _store(b"abcdef", [3, 3])
    storage.delete(part_key(KEY, offset=3))
    with open_blob(KEY, part_sizes=[3, 3]) as file, pytest.raises(NotFound):
        file.read()


def test_before_the_beginning_there_is_nothing():
    _store(b"abc", [3])
    with open_blob(KEY, part_sizes=[3]) as file, pytest.raises(OSError, match="before"):
        file.seek(-1)


def _store(data: bytes, sizes: list[int]) -> None:
    for start, size in zip([0, *accumulate(sizes)], sizes, strict=False):
        storage.put(part_key(KEY, offset=start), data[start : start + size])
