"""SAM's transformer block: the published result with less work.

The published block pads the tokens with zeros to whole windows: 16 x 16 tokens become four windows
of 14 x 14, two thirds of which is padding. It pads after the normalisation, so the key and the
value of a padded token are the bias of their projection, whatever the image. Of padding, therefore,

 - queries are not asked: nobody reads their answers;
 - all keys of a window are one key: their logits differ by the relative positions alone, which are
   a term of the row plus a term of the column, so the sum of their exponentials is a product of
   two short sums, and its logarithm is added to that one key's logit.

What is left is the published computation, and differentiable like it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlworker.model.product import Linear
from mlworker.model.torchvision_operators import modeling


def use_fast_blocks(image_encoder: nn.Module) -> None:
    """Let the blocks of an image encoder of segment-anything's be those below, in place."""
    replaced: dict[type, type] = {
        modeling.image_encoder.Block: Block,
        modeling.image_encoder.Attention: Attention,
        nn.Linear: Linear,
    }
    for module in cast(nn.ModuleList, image_encoder.blocks).modules():
        module.__class__ = replaced.get(type(module), type(module))


class Block(modeling.image_encoder.Block):  # type: ignore[misc]
    """Attention, then a perceptron, and beside it an adapter where there is one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        x = x + self.attn(self.norm1(x), window=self.window_size)
        # Rounded once for both, where products are packed in a lower precision.
        normed = self.mlp.lin1.rounded(self.norm2(x))
        added = self.mlp.lin2(self.mlp.lin1.multiply(normed, then="gelu"))
        if hasattr(self, "Adapter"):
            added = added + self.Adapter(normed)
        result: Tensor = x + added
        return result


class Attention(modeling.image_encoder.Attention):  # type: ignore[misc]
    """Attention of all tokens with each other, or within windows that may reach beyond them."""

    def forward(self, x: Tensor, *, window: int) -> Tensor:
        """(B, rows, columns, dim) -> the same shape; ``window`` 0 is the whole image."""
        rows, columns = x.shape[1:3]
        size = (window, window) if window else (rows, columns)
        positions = self._relative_positions(size)
        qkv = self.qkv(x)  # (B, rows, columns, 3 dim)
        if qkv.device.type == "cpu":
            qkv = qkv.to(x.dtype)  # a CPU attends no faster in the lower precision of a product
        bands = [
            torch.cat(
                [
                    self._attend_windows(qkv[:, top:bottom, left:right], size, positions)
                    for left, right in _spans(columns, size[1])
                ],
                dim=2,
            )
            for top, bottom in _spans(rows, size[0])
        ]
        return cast(Tensor, self.proj(torch.cat(bands, dim=1)))

    def _relative_positions(self, size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Of each query's row and each key's row, (rows, rows, channels); likewise of columns."""
        if not self.use_rel_pos:
            return None
        gather = modeling.image_encoder.get_rel_pos
        height, width = size
        return gather(height, height, self.rel_pos_h), gather(width, width, self.rel_pos_w)

    def _attend_windows(
        self, qkv: Tensor, size: tuple[int, int], positions: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Equal windows side by side: (B, rows, columns, 3 dim) -> (B, rows, columns, dim)."""
        batch, rows, columns, _ = qkv.shape
        height, width = min(rows, size[0]), min(columns, size[1])  # what they hold of tokens
        down, across = rows // height, columns // width
        windows = qkv.reshape(batch, down, height, across, width, -1).transpose(2, 3)
        x = self._attend(windows.flatten(0, 2), size, positions)
        x = x.view(batch, down, across, height, width, -1).transpose(2, 3)
        return x.reshape(batch, rows, columns, -1)

    def _attend(
        self, qkv: Tensor, size: tuple[int, int], positions: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Windows of ``size`` whose first rows and columns are tokens; the rest is padding.

        (N, rows, columns, 3 dim) -> (N, rows, columns, dim).
        """
        rows, columns = qkv.shape[1:3]
        padded = (rows, columns) != size
        qkv = torch.unflatten(qkv, 3, (3, self.num_heads, -1))
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).unbind()  # (N, heads, rows, columns, channels)
        logits = None
        if padded or positions is not None:
            logits = _added_logits(*self._terms(q, size, positions), rows=rows, columns=columns)
            logits = logits.flatten(2, 3)  # (N, heads, queries, keys)
        q, k, v = (each.flatten(2, 3) for each in (q, k, v))  # (N, heads, tokens, channels)
        if padded:
            of_padding = self._padding(k)
            k, v = (torch.cat(pair, dim=2) for pair in zip((k, v), of_padding, strict=True))
        x = functional.scaled_dot_product_attention(q, k, v, attn_mask=logits, scale=self.scale)
        return torch.unflatten(x.transpose(1, 2).flatten(2), 1, (rows, columns))

    def _terms(
        self, q: Tensor, size: tuple[int, int], positions: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """What a key's row adds to its logits, and what its column does.

        Queries (N, heads, rows, columns, channels) -> (N, heads, rows, columns, the window's rows),
        (N, heads, rows, columns, the window's columns).
        """
        if positions is None:
            nothing = q.new_zeros(*q.shape[:4], 1)
            return nothing.expand(*q.shape[:4], size[0]), nothing.expand(*q.shape[:4], size[1])
        of_rows, of_columns = (each.to(q.dtype) for each in positions)
        of_row = torch.einsum("nhrcd,rkd->nhrck", q, of_rows[: q.shape[2]])
        of_column = torch.einsum("nhrcd,ckd->nhrck", q, of_columns[: q.shape[3]])
        # Contiguous, or their sum over all keys, which is much larger, has to be copied.
        return of_row.contiguous(), of_column.contiguous()

    def _padding(self, k: Tensor) -> Tensor:
        """The key and the value of all padded tokens, (2, N, heads, 1, channels)."""
        n, heads, _, channels = k.shape
        if self.qkv.bias is None:
            return k.new_zeros(2, n, heads, 1, channels)
        bias: Tensor = self.qkv.bias.to(k.dtype).view(3, 1, heads, 1, channels)
        return bias[1:].expand(-1, n, -1, -1, -1)


def _added_logits(of_row: Tensor, of_column: Tensor, *, rows: int, columns: int) -> Tensor:
    """Terms of the rows and columns of a window -> of its tokens, then of its padding in one.

    (..., height), (..., width) -> (..., rows * columns), and one more where there is padding.
    """
    of_tokens = (of_row[..., :rows, None] + of_column[..., None, :columns]).flatten(-2)
    sums = []
    if columns < of_column.shape[-1]:
        sums.append(of_row.logsumexp(-1) + of_column[..., columns:].logsumexp(-1))
    if rows < of_row.shape[-1]:
        sums.append(of_row[..., rows:].logsumexp(-1) + of_column[..., :columns].logsumexp(-1))
    if not sums:
        return of_tokens
    return torch.cat([of_tokens, torch.stack(sums, dim=-1).logsumexp(-1, keepdim=True)], dim=-1)


def _spans(length: int, window: int) -> Iterator[tuple[int, int]]:
    """Where the whole windows lie, and where the one that is cut off does."""
    whole = length - length % window
    if whole:
        yield 0, whole
    if whole < length:
        yield whole, length
