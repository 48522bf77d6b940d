"""An image encoder for CPUs and few images: convolutions first, then a few transformer blocks.

A ViT on 16-pixel patches has to learn from data that neighbouring pixels belong together; from some
hundred images it does not. Convolutions know it, cost little at low resolution, and see edges that
a patch averages away. What the tokens mean rises again to an eighth and a quarter of the image's
resolution, where it meets those edges, before all of it becomes the embedding (Early Convolutions,
arXiv 2106.14881; U-Net, arXiv 1505.04597): the decoder that follows looks at each pixel by itself
and could not bring the two together. The embedding's form, the prompt encoder and the mask decoder
stay SAM's.
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
        self.stem_eighth = nn.Sequential(_halving(quarter, eighth), Residual(eighth))
        # Without the last norm the tokens grow a hundredfold, unpunished, because everything after
        # them normalises: what the blocks add to them is then too little to be seen.
        self.stem_tokens = nn.Sequential(_halving(eighth, dim), Residual(dim), Norm(dim))
        self.rise_eighth = Rise(dim, eighth)
        self.rise_quarter = Rise(eighth, quarter)
        self.fine = nn.Sequential(
            Norm(quarter), nn.Conv2d(quarter, channels, kernel_size=4, stride=4)
        )
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
        x = x.permute(0, 3, 1, 2)
        fine = self.fine(self.rise_quarter(self.rise_eighth(x, eighth), quarter))
        return cast(Tensor, self.neck(x) + fine + self.place)


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
        self.norm = Norm(channels)
        self.expand = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.reduce = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, rows, columns) -> the same shape."""
        return cast(Tensor, x + self.reduce(functional.gelu(self.expand(self.norm(x)))))


class Rise(nn.Module):
    """What is known at one resolution joins what was seen at twice it."""

    def __init__(self, channels: int, to: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.spread = nn.Conv2d(channels, 4 * to, kernel_size=1)
        self.residual = Residual(to)

    def forward(self, coarse: Tensor, seen: Tensor) -> Tensor:
        """(B, channels, rows, columns), (B, to, 2 rows, 2 columns) -> the latter's shape."""
        spread = functional.pixel_shuffle(self.spread(self.norm(coarse)), 2)
        return cast(Tensor, self.residual(seen + spread))


class Norm(nn.GroupNorm):
    """Normalisation over the whole picture of sixteen channels at a time.

    Over the channels of each pixel alone, what is flat would be as loud as an edge.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(max(1, channels // 16), channels)


def _halving(channels: int, to: int) -> nn.Conv2d:
    return nn.Conv2d(channels, to, kernel_size=3, stride=2, padding=1)
