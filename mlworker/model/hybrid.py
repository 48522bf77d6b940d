"""An image encoder for CPUs and few images: convolutions first, then a few transformer blocks.

A ViT on 16-pixel patches has to learn from data that neighbouring pixels belong together; from some
hundred images it does not. Convolutions know it, cost little at low resolution, and see edges that
a patch averages away, so what they found at a quarter and an eighth of the image's resolution is
added to the embedding (Early Convolutions, arXiv 2106.14881; the skips of a U-Net, arXiv
1505.04597). The embedding's form, the prompt encoder and the mask decoder stay SAM's.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlworker.model.torchvision_operators import modeling

WIDTHS = (32, 64, 128)  # channels at a half, a quarter and an eighth of the resolution


class HybridEncoder(modeling.ImageEncoderViT):  # type: ignore[misc]
    """SAM's image encoder with a convolutional stem for patches, and skips to its embedding."""

    def __init__(self, *, dim: int, channels: int, **numbers: object) -> None:
        super().__init__(embed_dim=dim, out_chans=channels, **numbers)
        half, quarter, eighth = WIDTHS
        del self.patch_embed
        self.stem_half = nn.Sequential(_halving(3, half), nn.GELU())
        self.stem_quarter = nn.Sequential(_halving(half, quarter), Residual(quarter))
        self.stem_eighth = nn.Sequential(
            _halving(quarter, eighth), Residual(eighth), Residual(eighth)
        )
        self.stem_tokens = nn.Sequential(_halving(eighth, dim), Residual(dim))
        self.skip_quarter = nn.Conv2d(quarter, channels, kernel_size=4, stride=4)
        self.skip_eighth = nn.Conv2d(eighth, channels, kernel_size=2, stride=2)
        # Where a token lies. SAM's decoder knows it only when it attends, not when it draws; with
        # it in the embedding an ellipse is a weighted sum, and a box is understood in minutes.
        self.place = nn.Parameter(
            places(channels=channels, side=self.pos_embed.shape[1]).to(self.pos_embed.device)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, channels, size / 16, size / 16)."""
        quarter = self.stem_quarter(self.stem_half(x))
        eighth = self.stem_eighth(quarter)
        x = self.stem_tokens(eighth).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.neck(x.permute(0, 3, 1, 2))
        return cast(Tensor, x + self.skip_quarter(quarter) + self.skip_eighth(eighth) + self.place)


def places(*, channels: int, side: int) -> Tensor:
    """(1, channels, side, side): mixtures of low-order functions of row and column."""
    centres = (torch.arange(side, device="cpu") + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    waves = [
        wave(math.pi / 2 * turns * axis)
        for turns in (1, 2, 3, 4)
        for axis in (x, y)
        for wave in (torch.sin, torch.cos)
    ]
    basis = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y, *waves])
    basis = basis / basis.std(dim=(1, 2), keepdim=True).clamp(min=0.3)
    by = torch.Generator().manual_seed(0)
    mixture = torch.randn(channels, len(basis), generator=by, device="cpu") / len(basis) ** 0.5
    return torch.einsum("cb,bij->cij", mixture, basis)[None]


class Residual(nn.Module):
    """Two convolutions beside a skip, normalised first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.reduce = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, rows, columns) -> the same shape."""
        return cast(Tensor, x + self.reduce(functional.gelu(self.expand(self.norm(x)))))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel; fast where channels lie together."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, rows, columns) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _halving(channels: int, to: int) -> nn.Conv2d:
    return nn.Conv2d(channels, to, kernel_size=3, stride=2, padding=1)
