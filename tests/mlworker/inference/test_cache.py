from __future__ import annotations

import numpy as np
import pytest
import torch

from mlworker.contract.artifacts import ArtifactError, checkpoint_key
from mlworker.inference.cache import EMBEDDING_SHAPE, Embeddings, Models, decoding_part
from mlworker.model.checkpoint import CheckpointError, Metadata, digest, pack
from mlworker.storage import ArtifactMissing, Store

EMBEDDING_BYTES = 4 * 256 * 16 * 16


@pytest.fixture
def store(tmp_path):
    return Store(f"file://{tmp_path}")


def _checkpoint(number: int) -> bytes:
    """A checkpoint that holds nothing but its number."""
    metadata = Metadata(
        variant="vit_t", image_size=256, adapters=True, trained=False, origin=f"test {number}"
    )
    return pack({"number": torch.tensor([number])}, metadata)


def _stored(store, data):
    store.put(checkpoint_key(digest(data)), data)
    return digest(data)


def test_the_last_two_models_are_kept(store):
    names = [_stored(store, _checkpoint(number)) for number in range(3)]
    read = []
    models = Models(store, part=lambda checkpoint: read.append(checkpoint.metadata.origin))

    for index in (0, 1, 0, 2, 0, 1):
        models.get(names[index])

    assert read == ["test 0", "test 1", "test 2", "test 1"]


def test_the_decoding_part_of_a_model_decodes(store, small_checkpoint):
    name = _stored(store, small_checkpoint.read_bytes())

    predictor = Models(store, part=decoding_part).get(name)

    mask = predictor.predict(
        torch.zeros(EMBEDDING_SHAPE), height=20, width=30, mask_prompt=torch.ones(64, 64)
    ).mask
    assert mask.shape == (20, 30)


def test_a_model_that_is_not_stored_is_missing(store):
    with pytest.raises(ArtifactMissing):
        Models(store, part=decoding_part).get("a" * 64)


def test_a_model_under_another_s_name_is_refused(store):
    store.put(checkpoint_key("a" * 64), _checkpoint(1))

    with pytest.raises(ArtifactError, match="not what was stored"):
        Models(store, part=decoding_part).get("a" * 64)


def test_a_file_that_is_no_checkpoint_is_refused(store):
    with pytest.raises(CheckpointError):
        Models(store, part=decoding_part).get(_stored(store, b"nothing of ours"))


def test_an_embedding_is_read_once(store):
    store.put_array("k", np.full(EMBEDDING_SHAPE, 0.5, np.float16))
    embeddings = Embeddings(store, limit_bytes=EMBEDDING_BYTES)

    first = embeddings.get("k")

    assert first is not None
    assert first.dtype == torch.float32
    assert (first == 0.5).all()
    assert embeddings.get("k") is first


def test_embeddings_give_way_by_age_of_use(store):
    for key in "abc":
        store.put_array(key, np.zeros(EMBEDDING_SHAPE, np.float16))
    embeddings = Embeddings(store, limit_bytes=2 * EMBEDDING_BYTES)
    first = {key: embeddings.get(key) for key in "ab"}
    embeddings.get("a")

    embeddings.get("c")

    assert embeddings.get("a") is first["a"]
    assert embeddings.get("b") is not first["b"]


def test_what_is_not_made_yet_is_asked_for_again(store):
    embeddings = Embeddings(store, limit_bytes=EMBEDDING_BYTES)
    assert embeddings.get("k") is None

    store.put_array("k", np.zeros(EMBEDDING_SHAPE, np.float16))

    assert embeddings.get("k") is not None


def test_an_embedding_of_another_shape_is_refused(store):
    store.put_array("k", np.zeros((256, 8, 8), np.float16))

    with pytest.raises(ArtifactError, match="shape"):
        Embeddings(store, limit_bytes=EMBEDDING_BYTES).get("k")
