from __future__ import annotations

import numpy as np
import pytest
import torch

from mlworker.inference.encoder import (
    Encoding,
    PrecisionError,
    computes_bfloat16,
    fastest_dtype,
    packed,
)
from mlworker.model.checkpoint import Checkpoint
from tests.mlworker import reference


def test_slices_of_any_size_become_embeddings_in_order(small_checkpoint):
    encoding = Encoding(Checkpoint(small_checkpoint).image_encoder())
    slices = [reference.image("a"), reference.image("b")]

    together = encoding.encode(slices)
    apart = [encoding.encode([each])[0] for each in slices]

    assert [(e.shape, e.dtype.name) for e in together] == [((256, 16, 16), "float16")] * 2
    for one, other in zip(together, apart, strict=True):
        # A batch may be summed in another order: one step of float16.
        assert np.allclose(one, other, atol=2e-3)
    assert not np.allclose(together[0], together[1], atol=0.1)


def test_served_embeddings_are_the_published_ones_rounded_to_half(reference_model, portable):
    expected = portable["a/embedding"][0]

    (embedding,) = Encoding(reference_model.image_encoder).encode([reference.image("a")])

    # float32's tolerance, and half a step of float16's eleven bits.
    assert (np.abs(embedding - expected) <= 1e-4 + 2.0**-11 * np.abs(expected)).all()


def test_packed_in_float32_embeddings_are_the_same(small_checkpoint):
    checkpoint = Checkpoint(small_checkpoint)
    ready = packed(checkpoint.image_encoder(), precision="float32")

    (expected,) = Encoding(checkpoint.image_encoder()).encode([reference.image("a")])
    (embedding,) = Encoding(ready).encode([reference.image("a")])

    assert np.allclose(embedding, expected, atol=2e-3)  # one step of float16


@pytest.mark.skipif(not computes_bfloat16(), reason="This CPU does not compute in bfloat16.")
def test_bfloat16_rounds_products_and_nothing_else(small_checkpoint):
    checkpoint = Checkpoint(small_checkpoint)
    ready = packed(checkpoint.image_encoder(), precision="bfloat16")
    (expected,) = Encoding(checkpoint.image_encoder()).encode([reference.image("a")])

    (embedding,) = Encoding(ready).encode([reference.image("a")])

    assert 0 < _relative_error(embedding, expected) < 0.1
    kept = {name for name, value in ready.named_parameters() if value.dtype == torch.float32}
    assert {"pos_embed", "blocks.0.norm1.weight", "blocks.0.attn.rel_pos_h"} <= kept


@pytest.mark.skipif(computes_bfloat16(), reason="This CPU computes in bfloat16.")
def test_bfloat16_is_refused_where_it_cannot_be_computed(small_checkpoint):
    with pytest.raises(PrecisionError, match="float32"):
        packed(Checkpoint(small_checkpoint).image_encoder(), precision="bfloat16")


def test_the_fastest_is_one_that_the_machine_computes(small_checkpoint):
    fastest = fastest_dtype(torch.device("cpu"))

    assert fastest == torch.float32 or (fastest == torch.bfloat16 and computes_bfloat16())
    assert fastest_dtype(torch.device("cuda")) == torch.float16
    ready = packed(Checkpoint(small_checkpoint).image_encoder())
    assert Encoding(ready).encode([reference.image("a")])[0].shape == (256, 16, 16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU.")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_on_a_gpu_embeddings_are_those_of_the_cpu(small_checkpoint, precision):
    checkpoint = Checkpoint(small_checkpoint)
    (expected,) = Encoding(checkpoint.image_encoder()).encode([reference.image("a")])

    ready = packed(checkpoint.image_encoder(), precision=precision)
    (embedding,) = Encoding(ready).encode([reference.image("a")])

    assert next(ready.parameters()).is_cuda
    assert _relative_error(embedding, expected) < 0.1


def _relative_error(embedding, expected):
    """The largest error in standard deviations."""
    values = expected.astype(np.float32)
    return np.abs(embedding.astype(np.float32) - values).max() / values.std()
