"""The mask decoder over many images at once, each row with its own prompts.

segment-anything's own ``MaskDecoder.forward`` takes one image with many prompts; training has a row
per mask of several images. The modules are called here in the same order, so that the numbers are
the same (Segment Anything, arXiv 2304.02643, appendix A).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    upscaled = mask_decoder.output_upscaling(image.transpose(1, 2).reshape(embeddings.shape))
    weights = torch.stack(
        [
            network(attended[:, 1 + kind])
            for kind, network in enumerate(mask_decoder.output_hypernetworks_mlps)
        ],
        dim=1,
    )  # (N, 4, 32)
    logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
    return logits, mask_decoder.iou_prediction_head(attended[:, 0])
