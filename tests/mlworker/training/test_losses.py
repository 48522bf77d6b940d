"""The losses against the published code's values."""

from __future__ import annotations

import pytest
import torch

from mlworker.training import losses
from tests.mlworker import reference

VECTORS = reference.portable()
LOGITS = torch.from_numpy(VECTORS["loss/logits"])[:, 0]
MASKS = torch.from_numpy(VECTORS["loss/target"])[:, 0].float()
PREDICTED = torch.from_numpy(VECTORS["loss/iou_pred"])[:, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("focal", losses.focal(LOGITS, MASKS)),
        ("dice", losses.dice(LOGITS, MASKS)),
        ("mask_iou", losses.mask_iou(LOGITS, MASKS, PREDICTED)),
        ("total", losses.published(LOGITS, MASKS, PREDICTED)),
    ],
)
def test_the_published_values(name, value) -> None:
    assert float(value) == pytest.approx(float(VECTORS[f"loss/{name}"]), rel=1e-5)


def test_each_mask_has_its_own_dice() -> None:
    masks = torch.stack([MASKS[0], 1 - MASKS[0]])
    sure = torch.where(MASKS[:1] > 0, 40.0, -40.0).expand(2, -1, -1)

    assert losses.dice_each(sure, masks).tolist() == pytest.approx([0, 1], abs=1e-3)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_sure_logits_give_finite_losses_and_gradients(logit) -> None:
    logits = torch.full((2, 8, 8), logit, requires_grad=True)
    masks = torch.zeros(2, 8, 8)
    masks[0] = 1

    loss = losses.published(logits, masks, torch.zeros(2))
    loss.backward()

    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_an_empty_mask_that_is_left_empty_costs_nothing() -> None:
    logits = torch.full((1, 8, 8), -40.0)

    assert float(losses.published(logits, torch.zeros(1, 8, 8), torch.ones(1))) == pytest.approx(
        0, abs=1e-4
    )
