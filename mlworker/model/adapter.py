"""The adapter of SAM-Med2D (arXiv 2308.16184, section 3.2) and the block that carries it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mlworker.model.torchvision_operators import modeling


class Adapter(nn.Module):
    """A channel gate and a spatial bottleneck at half resolution, beside the ungated skip.

    Parameter names are the published ones.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.channel = nn.Sequential(
            nn.Linear(dim, dim // 4, bias=False),
            nn.ReLU(),
            nn.Linear(dim // 4, dim, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        x = x.permute(0, 3, 1, 2)  # (B, dim, rows, columns)
        gate = self.channel(x.mean(dim=(2, 3)))  # (B, dim)
        x = x + self.spatial(x * gate[:, :, None, None])
        return cast(Tensor, self.norm(x.permute(0, 2, 3, 1)))


class AdaptedBlock(modeling.image_encoder.Block):  # type: ignore[misc]
    """SAM's transformer block with an adapter beside its MLP."""

    Adapter: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        image_encoder = modeling.image_encoder
        shortcut = x
        x = self.norm1(x)
        if self.window_size > 0:
            rows, columns = x.shape[1], x.shape[2]
            x, padded = image_encoder.window_partition(x, self.window_size)
        x = self.attn(x)
        if self.window_size > 0:
            x = image_encoder.window_unpartition(x, self.window_size, padded, (rows, columns))
        x = shortcut + x
        normed = self.norm2(x)
        return cast(Tensor, x + self.mlp(normed) + self.Adapter(normed))


def add_adapters(image_encoder: nn.Module, *, dim: int) -> None:
    """Put an adapter into every block of an image encoder, in place."""
    for block in cast(nn.ModuleList, image_encoder.blocks):
        block.__class__ = AdaptedBlock
        block.Adapter = Adapter(dim)


def without_adapters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a state dict that are not an adapter's ("SAM-Med2D*" in the paper)."""
    return {key: value for key, value in state.items() if ".Adapter." not in key}
