"""The simulated annotator."""

from __future__ import annotations

import numpy as np
import pytest

from mlworker.training import simulate


@pytest.fixture
def mask():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    return mask


@pytest.fixture
def by():
    return np.random.default_rng(3)


def test_a_box_ends_one_past_the_last_pixel(mask) -> None:
    assert simulate.box_of(mask).tolist() == [20, 10, 50, 30]


def test_a_shifted_box_keeps_its_size_and_moves_by_five_at_most(mask, by) -> None:
    mask[0, 0] = True  # a speck that the largest component's box leaves out
    moves = []
    for _ in range(200):
        x0, y0, x1, y1 = simulate.shifted_box(mask, by=by)
        assert (x1 - x0, y1 - y0) == (30, 20)
        moves.append((x0 - 20, y0 - 10))

    assert np.abs(moves).max() == 5
    assert len(set(moves)) > 50


def test_the_box_of_one_pixel_is_not_moved(by) -> None:
    mask = np.zeros((9, 9), bool)
    mask[4, 5] = True

    assert simulate.shifted_box(mask, by=by).tolist() == [5, 4, 6, 5]


def test_a_jittered_box_moves_each_side_by_its_share(mask, by) -> None:
    boxes = np.stack([simulate.jittered_box(mask, share=0.1, by=by) for _ in range(300)])

    moved = np.abs(boxes - [20, 10, 50, 30]) / [30, 20, 30, 20]
    assert moved.max() <= 0.1 + 1e-6
    assert (moved.max(0) > 0.09).all()


def test_a_jittered_box_stays_in_the_image_and_is_never_empty(by) -> None:
    mask = np.ones((4, 4), bool)
    for _ in range(100):
        x0, y0, x1, y1 = simulate.jittered_box(mask, share=0.9, by=by)
        assert 0 <= x0 < x1 <= 4
        assert 0 <= y0 < y1 <= 4


def test_the_first_point_is_inside(mask, by) -> None:
    for _ in range(50):
        ((x, y),), (label,) = simulate.first_point(mask, by=by)
        assert mask[int(y), int(x)]
        assert label == 1


def test_the_first_point_of_an_empty_mask_is_outside(by) -> None:
    _, (label,) = simulate.first_point(np.zeros((5, 5), bool), by=by)

    assert label == 0


def test_corrections_lie_where_the_prediction_is_wrong(mask, by) -> None:
    predicted = np.roll(mask, 8, axis=1)

    points, labels = simulate.corrections(predicted, mask, count=200, by=by)

    columns, rows = points.astype(int).T
    assert (predicted[rows, columns] != mask[rows, columns]).all()
    assert (labels == mask[rows, columns]).all()
    assert set(labels) == {0, 1}


def test_without_an_error_the_points_count_as_none(mask, by) -> None:
    _, labels = simulate.corrections(mask, mask, count=5, by=by)

    assert labels.tolist() == [simulate.IGNORED] * 5


def test_the_same_seed_gives_the_same_prompts(mask) -> None:
    drawn = [
        simulate.corrections(~mask, mask, count=9, by=np.random.default_rng(1))[0].tolist()
        for _ in range(2)
    ]

    assert drawn[0] == drawn[1]
