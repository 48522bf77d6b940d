"""Prompts on an embedded slice -> a mask at slice size. Needs no image encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlworker.contract.messages import Box, Point
from mlworker.inference.geometry import PUBLISHED, Frame
from mlworker.model.torchvision_operators import modeling


@dataclass(frozen=True)
class Prediction:
    """A proposal at slice size, and what the next refinement needs."""

    mask: npt.NDArray[np.bool_]  # (height, width)
    predicted_iou: float
    low_res_logits: Tensor  # (64, 64)


class Predictor:
    """Decodes prompts with one model's prompt encoder and mask decoder."""

    def __init__(
        self, prompt_encoder: nn.Module, mask_decoder: nn.Module, *, frame: Frame = PUBLISHED
    ) -> None:
        self._frame = frame
        self._prompt_encoder = prompt_encoder
        self._mask_decoder = mask_decoder
        with torch.inference_mode():
            # The same for every prompt, and a tenth of a click's time when made anew.
            self._position = dense_positions(prompt_encoder)

    def predict(
        self,
        embedding: Tensor,
        *,
        height: int,
        width: int,
        points: tuple[Point, ...] = (),
        box: Box | None = None,
        mask_prompt: Tensor | None = None,
    ) -> Prediction:
        """The best of three candidates.

        ``embedding`` (256, 16, 16); points and box in slice pixels; ``mask_prompt`` (64, 64)
        probabilities. At least one prompt must be given.
        """
        candidates, ious = self.candidates(
            embedding, height=height, width=width, points=points, box=box, mask_prompt=mask_prompt
        )
        best = int(ious.argmax())
        logits = candidates[best]
        with torch.inference_mode():
            mask = self._frame.to_slice(logits[None], height=height, width=width)[0] > 0
        return Prediction(mask.numpy(), float(ious[best]), logits)

    @torch.inference_mode()
    def candidates(
        self,
        embedding: Tensor,
        *,
        height: int,
        width: int,
        points: tuple[Point, ...] = (),
        box: Box | None = None,
        mask_prompt: Tensor | None = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (n, 64, 64) and predicted IoUs (n,): three, or one."""
        assert points or box or mask_prompt is not None, "a prompt is needed"
        sparse, dense = self._prompt_encoder(
            points=self._points(points, height=height, width=width),
            boxes=None if box is None else self._frame.box(box, height=height, width=width)[None],
            masks=None if mask_prompt is None else mask_prompt[None, None].float(),
        )
        logits, ious = self._mask_decoder(
            image_embeddings=embedding[None].float(),
            image_pe=self._position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits[0], ious[0]

    def _points(
        self, points: tuple[Point, ...], *, height: int, width: int
    ) -> tuple[Tensor, Tensor] | None:
        if not points:
            return None
        coordinates = self._frame.points(points, height=height, width=width)
        labels = torch.tensor([1 if point.positive else 0 for point in points])
        return coordinates[None], labels[None]


def dense_positions(prompt_encoder: nn.Module) -> Tensor:
    """(1, 256, 16, 16): where each token of an embedding lies."""
    return cast(Tensor, cast(modeling.PromptEncoder, prompt_encoder).get_dense_pe())
