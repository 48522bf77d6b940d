"""ViT-B with adapters as it was published, and as the worker serves it.

The published one is built from segment-anything's own blocks with SAM-Med2D's adapters; it pads
windows and convolves as they do. The weights are functions of their names, so nothing is
downloaded, and all encoders have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from mlworker.inference.encoder import Precision, packed
from mlworker.inference.predictor import Predictor
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly, random_weight
from mlworker.model.torchvision_operators import modeling


def published_encoder(
    *, image_size: int = 256, numbers: sam_med2d.Encoder | None = None, adapters: bool = True
) -> nn.Module:
    """segment-anything's image encoder with adapters as they were published."""
    numbers = numbers or sam_med2d.ENCODERS["vit_b"]
    encoder = modeling.ImageEncoderViT(
        img_size=image_size,
        patch_size=sam_med2d.PATCH,
        embed_dim=numbers.dim,
        depth=numbers.depth,
        num_heads=numbers.heads,
        mlp_ratio=4,
        out_chans=sam_med2d.CHANNELS,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sam_med2d.WINDOW,
        global_attn_indexes=numbers.global_blocks,
    )
    for block in encoder.blocks if adapters else ():
        block.__class__ = PublishedBlock
        block.Adapter = PublishedAdapter(numbers.dim)
    module: nn.Module = encoder.eval()
    return module


class PublishedBlock(modeling.image_encoder.Block):  # type: ignore[misc]
    """SAM's transformer block with an adapter beside its perceptron."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        shortcut = x
        x = self.norm1(x)
        if self.window_size > 0:
            size = x.shape[1:3]
            x, padded = modeling.image_encoder.window_partition(x, self.window_size)
        x = self.attn(x)
        if self.window_size > 0:
            x = modeling.image_encoder.window_unpartition(x, self.window_size, padded, size)
        x = shortcut + x
        normed = self.norm2(x)
        result: Tensor = x + self.mlp(normed) + self.Adapter(normed)
        return result


class PublishedAdapter(nn.Module):
    """SAM-Med2D's adapter (arXiv 2308.16184, section 3.2)."""

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
        gate = self.channel(x.mean(dim=(2, 3)))
        x = x + self.spatial(x * gate[:, :, None, None])
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed


def served_encoder(weights: Mapping[str, Tensor], precision: Precision) -> nn.Module:
    """The encoder as the worker prepares it."""
    encoder = sam_med2d.build_image_encoder("vit_b")
    # Copied: what is packed is given up.
    load_strictly(encoder, {k: v.clone() for k, v in part(weights, "image_encoder.").items()})
    return packed(encoder, precision=precision)


def served_predictor(weights: Mapping[str, Tensor]) -> Predictor:
    """What decodes prompts; its precision is always float32."""
    prompt_encoder, mask_decoder = (
        sam_med2d.build_prompt_encoder("vit_b"),
        sam_med2d.build_mask_decoder(),
    )
    load_strictly(prompt_encoder, part(weights, "prompt_encoder."))
    load_strictly(mask_decoder, part(weights, "mask_decoder."))
    return Predictor(prompt_encoder, mask_decoder)


def part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part of the model."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def random_weights(module: nn.Module) -> dict[str, Tensor]:
    """For every entry of its state dict, the same on every machine."""
    return {k: random_weight(k, v, seed=0) for k, v in module.state_dict().items()}
