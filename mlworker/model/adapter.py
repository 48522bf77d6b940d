"""The adapter of SAM-Med2D (arXiv 2308.16184, section 3.2).

Its two convolutions are written as products with their weights as they are published: torch's own
take longer to bring the weights into another order, at every call, than to multiply.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlworker.model.product import Product


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
        self.spatial = nn.Sequential(Halving(dim), nn.ReLU(), Doubling(dim), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        # Tokens to serve may be rounded to a product's precision; the gate's weights are not.
        gate = self.channel(x.mean(dim=(1, 2), dtype=self.norm.weight.dtype))  # (B, dim)
        return cast(Tensor, self.norm(x + self.spatial(x * gate[:, None, None].to(x.dtype))))


class Halving(Product, nn.Conv2d):  # type: ignore[misc]
    """A 3 x 3 convolution to half the resolution."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, kernel_size=3, stride=2, padding=1, bias=False)

    def matrix_to_pack(self) -> Tensor:
        """(dim, 9 dim): neighbours in the order in which they lie in memory."""
        return self.weight.permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> (B, rows / 2, columns / 2, dim), rounded up."""
        x = functional.pad(x, (0, 0, 1, 1, 1, 1))
        patches = x.unfold(1, 3, 2).unfold(2, 3, 2)  # (B, rows / 2, columns / 2, dim, 3, 3)
        if self.is_packed:
            patches = patches.permute(0, 1, 2, 4, 5, 3)
        return self.multiply(patches.flatten(3))


class Doubling(Product, nn.ConvTranspose2d):  # type: ignore[misc]
    """A transposed 4 x 4 convolution to twice the resolution."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, kernel_size=4, stride=2, padding=1, bias=False)

    def matrix(self) -> Tensor:
        """(16 dim, dim): what a token adds to the 4 x 4 tokens around it."""
        return self.weight.flatten(1).t()

    def matrix_to_pack(self) -> Tensor:
        """The same with the channels last."""
        return self.weight.permute(2, 3, 1, 0).flatten(0, 2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override] # takes no output_size
        """(B, rows, columns, dim) -> (B, 2 rows, 2 columns, dim)."""
        patches = self.multiply(x)  # (B, rows, columns, 16 dim)
        if self.is_packed:
            return _overlapped(torch.unflatten(patches, 3, (4, 4, -1)))
        # float32, because torch is slow at adding bfloat16 that do not lie together.
        patches = torch.unflatten(patches.float(), 3, (-1, 4, 4))
        return _overlapped(patches.permute(0, 1, 2, 4, 5, 3))


def _overlapped(patches: Tensor) -> Tensor:
    """Patches of 4 x 4 every two tokens, one token beyond the border -> their sums.

    (B, rows, columns, 4, 4, dim) -> (B, 2 rows, 2 columns, dim).
    """
    batch, rows, columns, _, _, dim = patches.shape
    # A patch's first two rows fall on the last two of the patch above it; columns likewise.
    sums = patches.new_zeros(batch, rows + 1, 2, columns + 1, 2, dim)
    for down, half in enumerate(patches.chunk(2, dim=3)):
        for across, quarter in enumerate(half.chunk(2, dim=4)):
            at = sums[:, down : rows + down, :, across : columns + across]
            at += quarter.transpose(2, 3)
    return sums.flatten(1, 2).flatten(2, 3)[:, 1:-1, 1:-1]


def add_adapters(image_encoder: nn.Module, *, dim: int) -> None:
    """Put an adapter into every block of an image encoder, in place."""
    for block in cast(nn.ModuleList, image_encoder.blocks):
        block.Adapter = Adapter(dim)


def drop_adapters(image_encoder: nn.Module) -> None:
    """Take the adapters out again, in place ("SAM-Med2D*" in the paper)."""
    for block in cast(nn.ModuleList, image_encoder.blocks):
        del block.Adapter


def without_adapters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a state dict that are not an adapter's ("SAM-Med2D*" in the paper)."""
    return {key: value for key, value in state.items() if ".Adapter." not in key}
