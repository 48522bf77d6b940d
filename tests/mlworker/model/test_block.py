"""Our blocks against the published ones, which pad windows and convolve as they do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from benchmarks.vit_b import published_encoder, random_weights
from mlworker.model.adapter import add_adapters
from mlworker.model.block import use_fast_blocks
from mlworker.model.checkpoint import load_strictly
from mlworker.model.product import Product, pack
from mlworker.model.sam_med2d import PATCH, WINDOW, Encoder
from mlworker.model.torchvision_operators import modeling

SMALL = Encoder(dim=32, depth=2, heads=2, global_blocks=(1,))
WINDOWS_ONLY = Encoder(dim=32, depth=1, heads=2, global_blocks=())


@dataclass(frozen=True)
class Pair:
    """A published encoder and ours, with the same weights."""

    published: torch.nn.Module
    ours: torch.nn.Module


def _pair(*, tokens=16, adapters=True, frozen=(), numbers=SMALL):
    pair = Pair(
        published_encoder(image_size=tokens * PATCH, numbers=numbers, adapters=adapters),
        _ours(image_size=tokens * PATCH, numbers=numbers, adapters=adapters),
    )
    weights = random_weights(pair.published)
    for encoder in (pair.published, pair.ours):
        # Of a token's part in the sums, the positions must be a part that shows.
        load_strictly(encoder, {k: v * (10 if "rel_pos" in k else 1) for k, v in weights.items()})
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(not any(part in name for part in frozen))
    return pair


def _ours(*, image_size, numbers, adapters):
    encoder = published_encoder(image_size=image_size, numbers=numbers, adapters=False)
    use_fast_blocks(encoder)
    if adapters:
        add_adapters(encoder, dim=numbers.dim)
    return encoder.eval()


def _slices(tokens, *, batch=1):
    by = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, tokens * PATCH, tokens * PATCH, generator=by)


@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize(
    ("tokens", "batch", "numbers"),
    [
        pytest.param(16, 1, SMALL, id="windows reach beyond the tokens"),
        pytest.param(16, 3, SMALL, id="of several images"),
        pytest.param(2 * WINDOW, 3, SMALL, id="windows fit"),
        pytest.param(10, 1, SMALL, id="a window is larger than all tokens"),
        pytest.param(64, 1, WINDOWS_ONLY, id="1024 px: whole windows beside those cut off"),
    ],
)
def test_outputs_and_gradients_are_the_published(tokens, batch, numbers, adapters):
    pair = _pair(tokens=tokens, numbers=numbers, adapters=adapters)
    slices = _slices(tokens, batch=batch)

    results = [_output_and_gradients(each, slices) for each in (pair.published, pair.ours)]

    assert results[0].keys() == results[1].keys()
    for name, expected in results[0].items():
        error = (results[1][name] - expected).abs().max()
        assert error <= 1e-4 * expected.abs().max().clamp(min=1e-3), name


@pytest.mark.parametrize("frozen", [("attn", "mlp", "norm"), ("Adapter",), ("rel_pos", "bias")])
def test_what_is_frozen_does_not_change_the_other_gradients(frozen):
    pair = _pair(frozen=frozen)

    expected, given = (_output_and_gradients(e, _slices(16)) for e in (pair.published, pair.ours))

    assert not any(part in name for name in given for part in frozen)
    assert expected.keys() == given.keys()
    for name in expected:
        error = (given[name] - expected[name]).abs().max()
        assert error <= 1e-4 * expected[name].abs().max().clamp(min=1e-3), name


def test_gradients_do_not_depend_on_what_was_computed_before():
    pair = _pair()
    slices = _slices(16)
    before = _output_and_gradients(pair.ours, slices)
    with torch.inference_mode():
        pair.ours(slices)
    with torch.no_grad():
        for parameter in pair.ours.parameters():
            parameter += 0.01
        for parameter in pair.ours.parameters():
            parameter -= 0.01

    after = _output_and_gradients(pair.ours, slices)

    assert all(torch.allclose(before[name], after[name], atol=1e-4) for name in before)


def test_keys_are_the_published():
    pair = _pair()

    assert {k: v.shape for k, v in pair.ours.state_dict().items()} == {
        k: v.shape for k, v in pair.published.state_dict().items()
    }


@pytest.mark.parametrize("tokens", [16, 10])
def test_blocks_without_relative_positions_are_the_published(tokens):
    block = torch.nn.ModuleList([_block(use_rel_pos=False)])
    slices = torch.randn(2, tokens, tokens, SMALL.dim, generator=torch.Generator().manual_seed(0))
    expected = block[0](slices)
    holder = torch.nn.Module()
    holder.blocks = block

    use_fast_blocks(holder)

    assert torch.allclose(block[0](slices), expected, atol=1e-5)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_padding_attends_with_the_bias_there_is(qkv_bias):
    holder = torch.nn.Module()
    holder.blocks = torch.nn.ModuleList([_block(use_rel_pos=True, qkv_bias=qkv_bias)])
    tokens = torch.randn(2, 16, 20, SMALL.dim, generator=torch.Generator().manual_seed(0))
    expected = holder.blocks[0](tokens)

    use_fast_blocks(holder)

    assert torch.allclose(holder.blocks[0](tokens), expected, atol=1e-5)


@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_packed_in_float32_the_result_is_the_published(adapters, batch):
    pair = _pair(adapters=adapters)
    slices = _slices(16, batch=batch)
    with torch.inference_mode():
        expected = pair.published(slices)
        pack(pair.ours, dtype=torch.float32)

        assert (pair.ours(slices) - expected).abs().max() < 1e-4


def test_packing_keeps_one_copy_of_the_weights():
    pair = _pair()
    products = [each for each in pair.ours.modules() if isinstance(each, Product)]
    assert len(products) == SMALL.depth * (4 + 2)  # per block, and per adapter

    pack(pair.ours, dtype=torch.float32)

    assert all(each.is_packed and not hasattr(each, "weight") for each in products)


def _block(*, use_rel_pos, qkv_bias=True):
    block = modeling.image_encoder.Block(
        dim=SMALL.dim,
        num_heads=SMALL.heads,
        qkv_bias=qkv_bias,
        use_rel_pos=use_rel_pos,
        window_size=WINDOW,
        input_size=(16, 16),
    ).eval()
    by = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=by))
    return block


def _output_and_gradients(encoder, slices):
    encoder.zero_grad(set_to_none=True)
    output = encoder(slices)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    (output * weights).mean().backward()
    gradients = {k: p.grad for k, p in encoder.named_parameters() if p.grad is not None}
    return {"output": output.detach(), **gradients}
