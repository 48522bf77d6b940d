"""Prepared slices -> embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mlworker.inference.geometry import PUBLISHED, Frame, Rgb

Embedding = npt.NDArray[np.float16]  # (256, 16, 16)


@dataclass(frozen=True)
class Encoding:
    """An image encoder and the frame that its slices are seen in."""

    image_encoder: nn.Module
    frame: Frame = PUBLISHED

    def encode(self, slices: list[Rgb]) -> list[Embedding]:
        """One embedding per slice, in one pass."""
        with torch.inference_mode():
            batch = torch.stack([self.frame.model_input(rgb) for rgb in slices])
            embeddings = self.image_encoder(batch)  # (B, 256, 16, 16)
        return list(embeddings.to(torch.float16).numpy())
