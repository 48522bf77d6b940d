from __future__ import annotations

import numpy as np

from mlworker.inference.encoder import Encoding
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
