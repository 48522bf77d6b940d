"""The losses of SAM-Med2D (arXiv 2308.16184, section 4.1, and its code).

Logits and masks are (N, rows, columns) of the same shape, masks with values 0 and 1. As published,
Dice and IoU are taken over the whole batch at once, not mask by mask: large structures count more.
``dice_each`` gives one value per mask, (N,), for choosing among candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

FOCAL_WEIGHT: Final = 20.0  # focal values are small: most pixels are easy
FOCAL_ALPHA: Final = 0.25  # weight of a structure's pixels; the others' is the rest
FOCAL_GAMMA: Final = 2  # as in focal loss (arXiv 1708.02002)
SMOOTH: Final = 1.0  # keeps Dice defined where both are empty
IOU_SMOOTH: Final = 1e-7


def published(
    logits: Tensor,
    masks: Tensor,
    predicted_iou: Tensor,
    *,
    over_batch: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Tensor:
    """20 x focal + Dice + IoU, a scalar; ``predicted_iou`` (N,).

    Where several processes share a batch, ``over_batch`` adds up their sums, differentiably.
    """
    sums = over_batch(_sums(torch.sigmoid(logits), masks, dims=(0, 1, 2)))
    iou = _iou_of(sums).expand_as(predicted_iou)
    return (
        FOCAL_WEIGHT * focal(logits, masks)
        + _dice_of(sums)
        + functional.mse_loss(predicted_iou, iou)
    )


def focal(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal loss, the mean over all pixels."""
    against = logits * (1 - 2 * masks)  # the logit of the untruth
    missed = torch.sigmoid(against)  # 1 - p of the truth
    surprise = functional.softplus(against)  # -log p of the truth, finite for any logit
    alpha = (1 - FOCAL_ALPHA) + (2 * FOCAL_ALPHA - 1) * masks
    return (alpha * missed**FOCAL_GAMMA * surprise).mean()


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - soft Dice of the batch."""
    return _dice_of(_sums(torch.sigmoid(logits), masks, dims=(0, 1, 2)))


def mask_iou(logits: Tensor, masks: Tensor, predicted_iou: Tensor) -> Tensor:
    """Squared difference of the predicted IoUs, (N,), from the batch's soft IoU."""
    iou = _iou_of(_sums(torch.sigmoid(logits), masks, dims=(0, 1, 2)))
    return functional.mse_loss(predicted_iou, iou.expand_as(predicted_iou))


def dice_each(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - soft Dice per mask, (N,)."""
    return _dice_of(_sums(torch.sigmoid(logits), masks, dims=(1, 2)))


def _sums(p: Tensor, masks: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    """Of the overlap, of the probabilities and of the masks: (3,) or (3, N)."""
    return torch.stack([(p * masks).sum(dims), p.sum(dims), masks.sum(dims)])


def _dice_of(sums: Tensor) -> Tensor:
    overlap, p, masks = sums.unbind()
    return 1 - (2 * overlap + SMOOTH) / (p + masks + SMOOTH)


def _iou_of(sums: Tensor) -> Tensor:
    overlap, p, masks = sums.unbind()
    return (overlap + IOU_SMOOTH) / (p + masks - overlap + IOU_SMOOTH)
