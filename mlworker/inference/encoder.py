"""Prepared slices -> embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mlworker.inference.geometry import Rgb, to_model_input

Embedding = npt.NDArray[np.float16]  # (256, 16, 16)


def encode(image_encoder: nn.Module, slices: list[Rgb]) -> list[Embedding]:
    """One embedding per slice, in one pass."""
    with torch.inference_mode():
        batch = torch.stack([to_model_input(rgb) for rgb in slices])  # (B, 3, 256, 256)
        embeddings = image_encoder(batch)  # (B, 256, 16, 16)
    return list(embeddings.to(torch.float16).numpy())
