"""The mask decoder over many images at once, each row with its own prompts.

segment-anything's own ``MaskDecoder.forward`` takes one image with many prompts; training has a row
per mask of several images. The modules are called here in the same order, so that the numbers are
the same (Segment Anything, arXiv 2304.02643, appendix A).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlworker.model.torchvision_operators import modeling


def decode(
    mask_decoder: nn.Module, *, embeddings: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Low-resolution logits (N, 4, 64, 64) and predicted IoUs (N, 4).

    The first of the four is SAM's single mask, the other three its candidates. ``embeddings`` and
    ``dense`` (N, 256, 16, 16), ``positions`` (1, 256, 16, 16), ``sparse`` (N, n, 256).
    """
    assert isinstance(mask_decoder, modeling.MaskDecoder)
    rows = embeddings.shape[0]
    output = torch.cat((mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight))
    tokens = torch.cat((output.expand(rows, -1, -1), sparse), dim=1)
    attended, image = mask_decoder.transformer(
        embeddings + dense, positions.expand(rows, -1, -1, -1), tokens
    )
    upscaled = _upscaled(mask_decoder.output_upscaling, image)
    weights = torch.stack(
        [
            network(attended[:, 1 + kind])
            for kind, network in enumerate(mask_decoder.output_hypernetworks_mlps)
        ],
        dim=1,
    )  # (N, 4, 32)
    logits = upscaled.flatten(1, 3) @ weights.transpose(1, 2)  # (N, 4096, 4)
    logits = torch.unflatten(logits, 1, (*embeddings.shape[2:], 2, 2, 2, 2))
    # Row, column, then twice which half of it: rows and columns come together.
    logits = logits.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)
    return logits, mask_decoder.iou_prediction_head(attended[:, 0])


def _upscaled(layers: nn.Sequential, image: Tensor) -> Tensor:
    """(N, tokens, 256) -> (N, tokens, 4, 4, 32): of each token, four quarters' four quarters.

    Transposed convolutions that do not overlap are products, and channels stay together in memory:
    convolutions that learn in bfloat16 take ten times as long on a CPU.
    """
    first, norm, activation, second, _ = cast(Any, layers)
    x = _quartered(first, image)
    x = functional.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    return cast(Tensor, activation(_quartered(second, activation(x))))


def _quartered(convolution: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """(..., inputs) -> (..., 4, outputs): upper left, upper right, lower left, lower right."""
    matrix = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    assert convolution.bias is not None
    x = functional.linear(x, matrix, convolution.bias.repeat(4))
    return torch.unflatten(x, -1, (4, -1))
