"""Prepared slices -> embeddings, as fast as the machine can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mlworker.inference.geometry import PUBLISHED, Frame, Rgb
from mlworker.model.product import has_onednn, pack

Embedding = npt.NDArray[np.float16]  # (256, 16, 16)
Precision = Literal["auto", "float32", "bfloat16"]

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class PrecisionError(ValueError):
    """This machine cannot compute in the precision that was asked for."""


@dataclass(frozen=True)
class Encoding:
    """An image encoder and the frame that its slices are seen in."""

    image_encoder: nn.Module
    frame: Frame = PUBLISHED

    def encode(self, slices: list[Rgb]) -> list[Embedding]:
        """One embedding per slice, in one pass."""
        device = next(self.image_encoder.parameters()).device
        with torch.inference_mode():
            batch = torch.stack([self.frame.model_input(rgb) for rgb in slices])
            embeddings = self.image_encoder(batch.to(device))  # (B, 256, 16, 16)
        return list(embeddings.to(torch.float16).cpu().numpy())


def packed(image_encoder: nn.Module, *, precision: Precision = "auto") -> nn.Module:
    """The encoder itself, made ready to encode and to nothing else; on the GPU where there is one.

    Its products are packed in ``precision``, by itself the fastest that keeps the masks; the rest
    stays float32. Raises PrecisionError.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = fastest_dtype(device) if precision == "auto" else _DTYPES[precision]
    if dtype == torch.bfloat16 and device.type == "cpu" and not computes_bfloat16():
        raise PrecisionError("This machine's CPU does not compute in bfloat16; use float32.")
    pack(image_encoder.to(device), dtype=dtype)
    return image_encoder


def fastest_dtype(device: torch.device) -> torch.dtype:
    """What products are fastest in: half on a GPU, bfloat16 on a CPU with instructions for it."""
    if device.type == "cuda":
        return torch.float16
    # oneDNN computes bfloat16 without the instructions too, but slower than float32.
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_instructions and computes_bfloat16() else torch.float32


def computes_bfloat16() -> bool:
    """Whether packed products may be bfloat16 on this machine's CPU."""
    return has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
