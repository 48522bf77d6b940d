"""The figure by which a run chooses its best weights. Evaluation proper is evaluate.py's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from mlworker.contract.messages import Box
from mlworker.inference.geometry import Frame, normalise
from mlworker.inference.predictor import dense_positions
from mlworker.model.decode import decode
from mlworker.model.sam_med2d import SamMed2D
from mlworker.training import simulate
from mlworker.training.dataset import mask_in_frame, read_image, read_mask
from mlworker.training.samples import Sample, by_image

_AT_ONCE: Final = 32  # masks of one image: enough to fill a processor, little memory


@torch.no_grad()
def box_dice(model: SamMed2D, samples: Sequence[Sample], *, frame: Frame) -> float:
    """The mean Dice from the exact box, in the model's frame; each image is encoded once."""
    device = next(model.parameters()).device
    positions = dense_positions(model.prompt_encoder)
    dices: list[float] = []
    for path, group in by_image(samples).items():
        image = normalise(frame.resized(read_image(path)))
        embedding = model.image_encoder(image[None].to(device))
        for first in range(0, len(group), _AT_ONCE):
            some = group[first : first + _AT_ONCE]
            truth = np.stack([mask_in_frame(read_mask(s.mask), frame) for s in some])
            boxes = torch.stack([corner_prompt(simulate.box_of(mask), frame) for mask in truth])
            sparse, dense = model.prompt_encoder(points=None, boxes=boxes.to(device), masks=None)
            logits, ious = decode(
                model.mask_decoder,
                embeddings=embedding.expand(len(some), -1, -1, -1),
                positions=positions,
                sparse=sparse,
                dense=dense,
            )
            best = 1 + ious[:, 1:].argmax(dim=1)
            chosen = logits[torch.arange(len(some), device=device), best]
            full = functional.interpolate(chosen[:, None], truth.shape[1:], mode="bilinear")
            dices += dice_each((full[:, 0] > 0).cpu().numpy(), truth).tolist()
    return float(np.mean(dices))


def dice_each(answers: simulate.Mask, truth: simulate.Mask) -> np.typing.NDArray[np.float64]:
    """Per mask, (N,), of (N, rows, columns); no mask of ``truth`` is empty."""
    overlap = (answers & truth).sum((1, 2))
    dice: np.typing.NDArray[np.float64] = 2 * overlap / (answers.sum((1, 2)) + truth.sum((1, 2)))
    return dice


def corner_prompt(box: simulate.Floats, frame: Frame) -> torch.Tensor:
    """A box in pixels of the frame -> (4,) as the model's prompt encoder has them."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return frame.box(Box(x0=x0, y0=y0, x1=x1, y1=y1), height=frame.size, width=frame.size)
