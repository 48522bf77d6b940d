"""Prompts on an embedded slice -> a mask at slice size. Needs no image encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mlworker.contract.messages import Box, Point
from mlworker.inference.geometry import PUBLISHED, Frame
from mlworker.model.torchvision_operators import modeling

# Bounds what a pass keeps in memory: about 4 MB for each.
PROMPTS_A_PASS: Final = 64


@dataclass(frozen=True, eq=False)
class Prompt:
    """What is asked about one object: points and box in slice pixels; at least one of the three."""

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask_prompt: Tensor | None = None  # (64, 64) probabilities

    def __post_init__(self) -> None:
        assert self.points or self.box or self.mask_prompt is not None, "a prompt is needed"


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
        prompt = Prompt(points=points, box=box, mask_prompt=mask_prompt)
        (prediction,) = self.predict_many(embedding, height=height, width=width, prompts=[prompt])
        return prediction

    @torch.inference_mode()
    def predict_many(
        self, embedding: Tensor, *, height: int, width: int, prompts: Sequence[Prompt]
    ) -> list[Prediction]:
        """The best of three candidates for each object of one slice, in the order of ``prompts``.

        Prompts of one form share a pass of the decoder. Filling up the shorter ones instead would
        change their answers: a point that is none is a token too.
        """
        predictions: dict[int, Prediction] = {}
        for indices in _passes(prompts):
            candidates, ious = self._decode(
                embedding, [prompts[i] for i in indices], height=height, width=width, multimask=True
            )
            best = ious.argmax(dim=1)
            for row, index in enumerate(indices):
                # Cloned, because what a session keeps must not keep everybody else's candidates.
                logits = candidates[row, best[row]].clone()
                # One at a time, because slices may be large.
                mask = self._frame.to_slice(logits[None], height=height, width=width)[0] > 0
                predictions[index] = Prediction(mask.numpy(), float(ious[row, best[row]]), logits)
        return [predictions[index] for index in range(len(prompts))]

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
        prompt = Prompt(points=points, box=box, mask_prompt=mask_prompt)
        logits, ious = self._decode(
            embedding, [prompt], height=height, width=width, multimask=multimask
        )
        return logits[0], ious[0]

    @torch.inference_mode()
    def candidates_of_points(
        self, embedding: Tensor, *, height: int, width: int, points: Sequence[Point]
    ) -> tuple[Tensor, Tensor]:
        """What each point alone gives: logits (N, 3, 64, 64), predicted IoUs (N, 3)."""
        prompts = [Prompt(points=(point,)) for point in points]
        passes = [
            self._decode(
                embedding,
                prompts[start : start + PROMPTS_A_PASS],
                height=height,
                width=width,
                multimask=True,
            )
            for start in range(0, len(prompts), PROMPTS_A_PASS)
        ]
        logits, ious = zip(*passes, strict=True)
        return torch.cat(logits), torch.cat(ious)

    def _decode(
        self,
        embedding: Tensor,
        prompts: Sequence[Prompt],
        *,
        height: int,
        width: int,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Prompts of one form -> logits (N, n, 64, 64), predicted IoUs (N, n); n is 3 or 1."""
        boxes = [
            self._frame.box(prompt.box, height=height, width=width)
            for prompt in prompts
            if prompt.box is not None
        ]
        masks = [prompt.mask_prompt for prompt in prompts if prompt.mask_prompt is not None]
        sparse, dense = self._prompt_encoder(
            points=self._points(prompts, height=height, width=width),
            boxes=torch.stack(boxes) if boxes else None,
            masks=torch.stack(masks)[:, None].float() if masks else None,
        )
        logits, ious = self._mask_decoder(
            image_embeddings=embedding[None].float(),
            image_pe=self._position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits, ious

    def _points(
        self, prompts: Sequence[Prompt], *, height: int, width: int
    ) -> tuple[Tensor, Tensor] | None:
        if not prompts[0].points:
            return None
        coordinates = torch.stack(
            [self._frame.points(prompt.points, height=height, width=width) for prompt in prompts]
        )
        labels = [[1 if point.positive else 0 for point in prompt.points] for prompt in prompts]
        return coordinates, torch.tensor(labels)


def _passes(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Indices of prompts that the decoder can answer together."""
    forms: dict[tuple[int, bool, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        form = (len(prompt.points), prompt.box is not None, prompt.mask_prompt is not None)
        forms.setdefault(form, []).append(index)
    for indices in forms.values():
        for start in range(0, len(indices), PROMPTS_A_PASS):
            yield indices[start : start + PROMPTS_A_PASS]


def dense_positions(prompt_encoder: nn.Module) -> Tensor:
    """(1, 256, 16, 16): where each token of an embedding lies."""
    return cast(Tensor, cast(modeling.PromptEncoder, prompt_encoder).get_dense_pe())
