"""How sure a model is of a slice."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch

from mlworker.contract.messages import Point
from mlworker.inference.cache import decoding_part
from mlworker.inference.predictor import Predictor
from mlworker.inference.scoring import features_of, score
from mlworker.model.checkpoint import Checkpoint


class Decided:
    """A predictor that answers with what a function of the point says."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def candidates_of_points(self, embedding, *, height, width, points):
        self.asked += points
        logits, ious = zip(*(self.answer(point) for point in points), strict=True)
        return torch.stack(logits), torch.tensor(ious)


def disc(*, rows):
    """Logits of a mask that covers so many of the 64 rows."""
    logits = torch.full((64, 64), -1.0)
    logits[:rows] = 1.0
    return logits


def asked_of(answer, *, height=256, width=512):
    predictor = Decided(answer)
    return score(
        cast(Predictor, predictor), torch.ones(256, 16, 16), height=height, width=width
    ), predictor


def test_a_model_that_always_says_the_same_is_in_no_doubt():
    scores, _ = asked_of(lambda point: (torch.stack([disc(rows=9)] * 3), [0.9, 0.8, 0.7]))
    assert scores.predicted_iou == pytest.approx(0.9)
    assert scores.disagreement == 0
    assert scores.instability == 0


def test_three_different_answers_disagree():
    nested = torch.stack([disc(rows=8), disc(rows=16), disc(rows=32)])
    scores, _ = asked_of(lambda point: (nested, [0.1, 0.6, 0.3]))
    assert scores.predicted_iou == pytest.approx(0.6)
    assert scores.disagreement == pytest.approx(1 - (1 / 2 + 1 / 4 + 1 / 2) / 3)
    assert scores.instability == 0


def test_an_answer_that_a_moved_click_changes_is_unstable():
    def by_place(point):
        on_grid = round(point.x / 512 * 3 - 0.5, 6).is_integer()
        return torch.stack([disc(rows=16 if on_grid else 32)] * 3), [0.5] * 3

    scores, predictor = asked_of(by_place)
    assert scores.instability == pytest.approx(0.5)
    assert scores.disagreement == 0
    # By a few pixels, and never beyond the slice.
    moved = {
        round(abs(a.x - b.x), 6)
        for a, b in zip(predictor.asked[:9], predictor.asked[9:], strict=True)
    }
    assert moved == {8.0}
    assert all(0 <= p.x < 512 and 0 <= p.y < 256 and p.positive for p in predictor.asked)


def test_nothing_twice_is_the_same():
    scores, _ = asked_of(lambda point: (torch.full((3, 64, 64), -1.0), [1.2, 0.0, -0.1]))
    assert (scores.predicted_iou, scores.disagreement, scores.instability) == (1.0, 0.0, 0.0)


def test_features_are_the_mean_over_places():
    embedding = torch.arange(256.0)[:, None, None] + torch.linspace(-1, 1, 256).reshape(16, 16)
    np.testing.assert_allclose(features_of(embedding), np.arange(256), atol=1e-4)


def test_points_together_are_points_one_by_one(small_checkpoint):
    predictor = decoding_part(Checkpoint(small_checkpoint))
    embedding = torch.randn(256, 16, 16, generator=torch.Generator().manual_seed(1))
    points = [Point(x=float(n), y=2.0 * n, positive=True) for n in range(70)]  # two passes
    logits, ious = predictor.candidates_of_points(embedding, height=200, width=100, points=points)
    assert logits.shape == (70, 3, 64, 64)
    for number in (0, 63, 69):
        alone, iou = predictor.candidates(
            embedding, height=200, width=100, points=(points[number],)
        )
        torch.testing.assert_close(logits[number], alone, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ious[number], iou, atol=1e-5, rtol=1e-5)


def test_a_real_model_has_scores_within_their_bounds(small_checkpoint):
    predictor = decoding_part(Checkpoint(small_checkpoint))
    embedding = torch.randn(256, 16, 16, generator=torch.Generator().manual_seed(1))
    scores = score(predictor, embedding, height=60, width=80)
    for value in (scores.predicted_iou, scores.disagreement, scores.instability):
        assert 0 <= value <= 1
    assert score(predictor, embedding, height=60, width=80).instability == scores.instability
