from __future__ import annotations

import uuid

import numpy as np
import pytest

from mlworker.contract.artifacts import ArtifactError
from mlworker.storage import ArtifactMissing, Store


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    """A store on local files, and one that is not (as S3 is not)."""
    if request.param == "file":
        return Store(f"file://{tmp_path}/objects")
    return Store(f"memory://{uuid.uuid4()}")


def test_what_is_put_can_be_had_again(store):
    store.put("models/a", b"one")
    store.put("models/a", b"another")

    assert store.exists("models/a")
    assert store.get("models/a") == b"another"
    with store.as_file("models/a") as path:
        assert path.read_bytes() == b"another"


def test_what_is_not_there_is_missing(store):
    assert not store.exists("models/a")
    with pytest.raises(ArtifactMissing, match="models/a"):
        store.get("models/a")
    with pytest.raises(ArtifactMissing, match="models/a"), store.as_file("models/a"):
        pass


def test_what_is_removed_is_gone_and_may_be_removed_again(store):
    store.put("models/a", b"one")

    store.remove("models/a")
    store.remove("models/a")

    assert not store.exists("models/a")


def test_arrays_come_back(store):
    array = np.arange(6, dtype=np.float16).reshape(2, 3)

    store.put_array("embeddings/a.npy", array)

    assert np.array_equal(store.get_array("embeddings/a.npy"), array)


def test_bytes_that_are_no_array_are_refused(store):
    store.put("embeddings/a.npy", b"text")

    with pytest.raises(ArtifactError):
        store.get_array("embeddings/a.npy")


def test_a_failed_write_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    store = Store(f"file://{tmp_path}")
    store.put("a/b", b"kept")

    with pytest.raises(OSError, match="directory"):
        store.put("a", b"where a folder is")

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b"]
    assert store.get("a/b") == b"kept"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b", ".."])
def test_a_key_stays_inside_the_store(store, key):
    with pytest.raises(AssertionError):
        store.get(key)
