"""SAM-Med2D, built from segment-anything's own modules. All the numbers are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from torch import Tensor, nn
from torch.nn import functional

from mlworker.contract.messages import Variant
from mlworker.model.adapter import add_adapters
from mlworker.model.block import use_fast_blocks
from mlworker.model.drawing import DrawingPromptEncoder
from mlworker.model.hybrid import HybridEncoder
from mlworker.model.torchvision_operators import modeling

PATCH: Final = 16  # pixels per token
CHANNELS: Final = 256  # of an embedding
WINDOW: Final = 14  # tokens per side of a window-attention block
IMAGE_SIZE: Final = 256


@dataclass(frozen=True)
class Encoder:
    """Numbers of an image encoder."""

    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]  # these attend over the whole image, the others within windows
    hybrid: bool = False  # convolutions first, no relative positions, and prompts are drawn


ENCODERS: Final[Mapping[Variant, Encoder]] = {
    "vit_b": Encoder(dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
    "vit_l": Encoder(dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": Encoder(dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
    # For CPUs: same tokens, same embedding, about a thirtieth of the work.
    "vit_t": Encoder(dim=192, depth=6, heads=3, global_blocks=(2, 5)),
    # For CPUs and for training from scratch; the default model's.
    "hybrid_t": Encoder(dim=256, depth=4, heads=8, global_blocks=(0, 1, 2, 3), hybrid=True),
}


class SamMed2D(nn.Module):
    """The three parts; they are called by mlworker.inference and by training, not as a whole."""

    def __init__(
        self, *, image_encoder: nn.Module, prompt_encoder: nn.Module, mask_decoder: nn.Module
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder


def build(
    variant: Variant = "vit_b", *, image_size: int = IMAGE_SIZE, adapters: bool = True
) -> SamMed2D:
    """A model with unset weights in evaluation mode; its state dict has the published keys."""
    return SamMed2D(
        image_encoder=build_image_encoder(variant, image_size=image_size, adapters=adapters),
        prompt_encoder=build_prompt_encoder(variant, image_size=image_size),
        mask_decoder=build_mask_decoder(),
    ).eval()


def build_image_encoder(
    variant: Variant, *, image_size: int = IMAGE_SIZE, adapters: bool = True
) -> nn.Module:
    """(B, 3, image_size, image_size) -> (B, 256, image_size / 16, image_size / 16)."""
    numbers = ENCODERS[variant]
    shared = {
        "img_size": image_size,
        "patch_size": PATCH,
        "depth": numbers.depth,
        "num_heads": numbers.heads,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "use_rel_pos": not numbers.hybrid,
        "window_size": WINDOW,
        "global_attn_indexes": numbers.global_blocks,
    }
    encoder = (
        HybridEncoder(dim=numbers.dim, channels=CHANNELS, **shared)
        if numbers.hybrid
        else modeling.ImageEncoderViT(embed_dim=numbers.dim, out_chans=CHANNELS, **shared)
    )
    use_fast_blocks(encoder)
    if adapters:
        add_adapters(encoder, dim=numbers.dim)
    return cast(nn.Module, encoder.eval())


def build_prompt_encoder(variant: Variant, *, image_size: int = IMAGE_SIZE) -> nn.Module:
    """Points, boxes and masks -> sparse (B, n, 256) and dense (B, 256, tokens, tokens)."""
    tokens = image_size // PATCH
    kind = DrawingPromptEncoder if ENCODERS[variant].hybrid else modeling.PromptEncoder
    encoder = kind(
        embed_dim=CHANNELS,
        image_embedding_size=(tokens, tokens),
        input_image_size=(image_size, image_size),
        mask_in_chans=16,
    )
    return cast(nn.Module, encoder.eval())


def build_mask_decoder() -> nn.Module:
    """Embedding and prompts -> masks at a quarter of the image size, and their predicted IoU."""
    decoder = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=modeling.TwoWayTransformer(
            depth=2, embedding_dim=CHANNELS, mlp_dim=2048, num_heads=8
        ),
        transformer_dim=CHANNELS,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return cast(nn.Module, decoder.eval())


def resize_positions(state: Mapping[str, Tensor], *, image_size: int) -> dict[str, Tensor]:
    """State of an original SAM at another image size -> the same at ``image_size``.

    As published: absolute positions and the relative ones of global-attention blocks are resized
    bilinearly; window-attention blocks do not depend on the image's size and are kept.
    """
    tokens = image_size // PATCH
    resized = dict(state)
    position = state["image_encoder.pos_embed"]  # (1, old, old, dim)
    if position.shape[1] != tokens:
        resized["image_encoder.pos_embed"] = functional.interpolate(
            position.permute(0, 3, 1, 2), (tokens, tokens), mode="bilinear", align_corners=False
        ).permute(0, 2, 3, 1)
    window_length = 2 * WINDOW - 1
    for key, value in state.items():
        if ".rel_pos_" in key and value.shape[0] != window_length:
            length, channels = 2 * tokens - 1, value.shape[1]
            resized[key] = functional.interpolate(
                value[None, None], (length, channels), mode="bilinear", align_corners=False
            )[0, 0]
    return resized
