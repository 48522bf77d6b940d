from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from mlworker.contract.messages import Variant
from mlworker.inference.geometry import PUBLISHED
from mlworker.model import sam_med2d
from mlworker.model.adapter import without_adapters
from mlworker.model.checkpoint import Checkpoint, load_strictly
from tests.mlworker import reference


def _shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_vit_b_has_exactly_the_published_keys(reference_model):
    assert len(reference.published_shapes()) == 386
    assert _shapes(reference_model) == reference.published_shapes()


def test_the_default_is_the_published_model():
    with torch.device("meta"):
        assert _shapes(sam_med2d.build()) == reference.published_shapes()


def test_the_parts_are_where_they_are_looked_for(reference_model):
    parts = {key.split(".")[0] for key in reference_model.state_dict()}

    assert parts == {"image_encoder", "prompt_encoder", "mask_decoder"}
    assert all(isinstance(getattr(reference_model, part), torch.nn.Module) for part in parts)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_without_adapters_nothing_else_changes(variant):
    with torch.device("meta"):
        whole = sam_med2d.build(variant).state_dict()
        bare = sam_med2d.build(variant, adapters=False).state_dict()

    assert without_adapters(whole).keys() == bare.keys()
    assert all(whole[key].shape == bare[key].shape for key in bare)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_every_variant_shares_the_prompt_encoder_and_the_mask_decoder(variant):
    with torch.device("meta"):
        shapes = _shapes(sam_med2d.build(variant))

    expected = reference.published_shapes()
    assert {k: s for k, s in shapes.items() if not k.startswith("image_encoder.")} == {
        k: s for k, s in expected.items() if not k.startswith("image_encoder.")
    }
    assert shapes["image_encoder.pos_embed"][:3] == expected["image_encoder.pos_embed"][:3]


@pytest.mark.parametrize("name", reference.SIZES)
def test_embeddings_equal_the_published(name, reference_model, portable):
    assert _difference(reference_model, reference.image(name), portable[f"{name}/embedding"]) < 1e-4


@pytest.mark.parametrize("name", ["amos_0004_75", "s0114_111"])
def test_embeddings_of_published_slices_equal_the_published(
    name, reference_model, published, published_images
):
    expected = published[f"{name}/embedding"]

    assert _difference(reference_model, published_images[name], expected) < 1e-4


def test_embeddings_without_adapters_equal_the_published(bare_model, portable):
    expected = portable["a/embedding_without_adapter"]

    assert _difference(bare_model, reference.image("a"), expected) < 1e-4


def test_embeddings_without_adapters_of_a_published_slice_equal_the_published(
    bare_model, published, published_images
):
    name = "amos_0004_75"
    expected = published[f"{name}/embedding_without_adapter"]

    assert _difference(bare_model, published_images[name], expected) < 1e-4


def test_a_batch_is_its_slices(small_checkpoint):
    encoder = Checkpoint(small_checkpoint).image_encoder()
    slices = torch.stack([PUBLISHED.model_input(reference.image(name)) for name in "ab"])
    with torch.inference_mode():
        together = encoder(slices)
        apart = torch.cat([encoder(each[None]) for each in slices])

    assert (together - apart).abs().max() < 1e-4


def test_weights_of_sam_at_1024_px_are_resized_as_published(portable):
    with torch.device("meta"):
        large = sam_med2d.build("vit_b", image_size=1024, adapters=False)
        model = sam_med2d.build("vit_b", adapters=False)
    shapes = _shapes(large)
    state = reference.weights(shapes.items(), prefix="sam1024/")

    resized = sam_med2d.resize_positions(state, image_size=256)

    expected = {key: v for key, v in portable.items() if key.startswith("from_sam_1024/")}
    assert len(expected) == 4
    for key, value in expected.items():
        assert np.abs(resized[key.removeprefix("from_sam_1024/")].numpy() - value).max() < 1e-6
    assert {key: tuple(value.shape) for key, value in resized.items()} == _shapes(model)


def test_positions_of_the_right_size_are_kept():
    state = sam_med2d.build("vit_t").state_dict()

    resized = sam_med2d.resize_positions(state, image_size=256)

    assert all(torch.equal(state[key], resized[key]) for key in state)


@pytest.fixture(scope="module")
def bare_model(reference_model):
    model = sam_med2d.build("vit_b", adapters=False)
    load_strictly(model, without_adapters(reference_model.state_dict()))
    return model


def _difference(model, rgb, expected):
    with torch.inference_mode():
        embedding = model.image_encoder(PUBLISHED.model_input(rgb)[None])
    assert embedding.shape == expected.shape == (1, 256, 16, 16)
    return np.abs(embedding.numpy() - expected).max()
