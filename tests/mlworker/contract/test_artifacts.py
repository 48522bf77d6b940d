from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from mlworker.contract import artifacts
from mlworker.contract.artifacts import ArtifactError

KEY: dict[str, Any] = {
    "pixels_digest": "a" * 64,
    "window": (40.0, 400.0),
    "preparation": 1,
    "model_digest": "b" * 64,
}


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "|u1", "<f2", "<f4", "|b1"])
def test_an_array_comes_back_from_its_bytes(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype).transpose(2, 0, 1)

    back = artifacts.unpack_array(artifacts.pack_array(array))

    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert artifacts.array_digest(back) == artifacts.array_digest(array)


def test_equal_bytes_of_another_shape_or_type_are_another_array():
    array = np.zeros((4, 4), np.int16)
    others = [array.reshape(2, 8), array.view(np.uint16), np.ones_like(array)]

    digests = [artifacts.array_digest(each) for each in (array, *others)]

    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of ours",
        artifacts.pack_array(np.zeros(100))[:-1],
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(
            128
        ),
    ],
    ids=["nothing", "text", "cut off", "pickled objects"],
)
def test_bytes_that_are_no_array_are_refused(data):
    with pytest.raises(ArtifactError, match="not a packed array"):
        artifacts.unpack_array(data)


def test_an_embedding_has_another_key_for_everything_that_changes_it():
    changes: dict[str, Any] = {
        "pixels_digest": "c" * 64,
        "window": (41.0, 400.0),
        "preparation": 2,
        "model_digest": "d" * 64,
    }
    keys = [artifacts.embedding_key(**KEY)] + [
        artifacts.embedding_key(**KEY | {field: value}) for field, value in changes.items()
    ]

    assert all(a != b for a, b in itertools.combinations(keys, 2))
    assert artifacts.embedding_key(**KEY) == keys[0]


def test_a_study_s_pixels_lie_under_its_prefix():
    assert artifacts.pixels_key("s", "1").startswith(artifacts.study_prefix("s"))
