from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlworker.contract import artifacts
from mlworker.contract.artifacts import ArtifactError
from mlworker.contract.messages import SliceImage, Window

MODEL = "b" * 64
IMAGE = SliceImage(
    pixels_key="here",
    pixels_digest="a" * 64,
    height=2,
    width=3,
    window=Window(centre=40, width=400),
)


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
    changes: dict[str, object] = {
        "pixels_digest": "c" * 64,
        "window": Window(centre=41, width=400),
        "slope": 2.0,
        "intercept": -1024.0,
        "inverted": True,
        "preparation": 2,
    }
    keys = [
        artifacts.embedding_key(IMAGE, model_digest=MODEL),
        artifacts.embedding_key(IMAGE, model_digest="d" * 64),
        *(
            artifacts.embedding_key(IMAGE.model_copy(update={name: value}), model_digest=MODEL)
            for name, value in changes.items()
        ),
    ]

    assert all(a != b for a, b in itertools.combinations(keys, 2))


def test_an_embedding_is_the_same_wherever_its_pixels_lie():
    elsewhere = IMAGE.model_copy(update={"pixels_key": "there"})

    assert artifacts.embedding_key(elsewhere, model_digest=MODEL) == artifacts.embedding_key(
        IMAGE, model_digest=MODEL
    )


def test_a_study_s_pixels_lie_under_its_prefix():
    assert artifacts.pixels_key("s", "1").startswith(artifacts.study_prefix("s"))
