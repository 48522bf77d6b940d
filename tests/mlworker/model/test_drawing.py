"""Prompts drawn as a mask prompt."""

from __future__ import annotations

import pytest
import torch

from mlworker.model import drawing, sam_med2d

NOTHING = torch.zeros(1, 1, 64, 64)


def drawn(*points: tuple[float, float, int], given: float = 0.0, masks: torch.Tensor = NOTHING):
    coordinates = torch.tensor([[point[:2] for point in points]])
    labels = torch.tensor([[point[2] for point in points]])
    return drawing.draw(masks, given, coordinates, labels)[0, 0]


def test_a_box_is_an_ellipse_in_it_and_nothing_outside() -> None:
    mask = drawn((39.5, 79.5, drawing.FIRST_CORNER), (99.5, 119.5, drawing.SECOND_CORNER))

    rows, columns = torch.nonzero(mask, as_tuple=True)
    assert [int(edge) for axis in (columns, rows) for edge in axis.aminmax()] == [10, 24, 20, 29]
    assert mask[25, 17] > 0.95
    assert mask[20, 10] == pytest.approx(drawing.CORNERS, abs=0.02)
    assert torch.allclose(mask, mask.flip(0).roll(50 - 64, 0), atol=1e-4)  # about its middle row


def test_a_box_smaller_than_a_cell_is_as_likely_as_it_covers() -> None:
    mask = drawn((40.5, 80.5, drawing.FIRST_CORNER), (42.5, 82.5, drawing.SECOND_CORNER))

    assert torch.nonzero(mask).tolist() == [[20, 10]]
    assert 0.2 < mask[20, 10] < 0.25  # a quarter of the cell


def test_clicks_make_and_take_away() -> None:
    inside = drawn((101.5, 61.5, drawing.INSIDE))
    assert inside.argmax() == 15 * 64 + 25
    assert inside.max() == pytest.approx(1, abs=0.1)
    full = torch.ones(1, 1, 64, 64)
    outside = drawn((101.5, 61.5, drawing.OUTSIDE), given=1.0, masks=full)
    assert torch.allclose(outside, 1 - inside, atol=1e-6)
    assert (drawn((101.5, 61.5, -1)) == 0).all()


def test_a_given_mask_replaces_the_box_but_not_the_clicks() -> None:
    masks = torch.rand(1, 1, 64, 64)
    box = ((39.5, 79.5, drawing.FIRST_CORNER), (99.5, 119.5, drawing.SECOND_CORNER))

    assert torch.equal(drawn(*box, given=1.0, masks=masks), masks[0, 0])
    clicked = drawn(*box, (200, 200, drawing.INSIDE), given=1.0, masks=masks)
    assert clicked[50, 50] > masks[0, 0, 50, 50]


def test_what_is_given_has_the_form_and_the_points_of_sam() -> None:
    torch.manual_seed(0)
    draws = sam_med2d.build_prompt_encoder("hybrid_t")
    plain = sam_med2d.build_prompt_encoder("vit_t")
    plain.load_state_dict(draws.state_dict(), strict=True)
    points = (torch.tensor([[[10.0, 20.0]]]), torch.tensor([[1]]))
    boxes = torch.tensor([[5.0, 6.0, 70.0, 80.0]])

    for prompts in (
        {"points": points, "boxes": None},
        {"points": None, "boxes": boxes},
        {"points": points, "boxes": boxes},
    ):
        sparse, dense = draws(**prompts, masks=None)
        expected, _ = plain(**prompts, masks=None)
        assert torch.equal(sparse, expected)
        assert dense.shape == (1, 256, 16, 16)
    # Without a point or a box there is nothing to draw.
    masks = torch.rand(1, 1, 64, 64)
    for one, other in zip(
        draws(points=None, boxes=None, masks=masks),
        plain(points=None, boxes=None, masks=masks),
        strict=True,
    ):
        assert torch.equal(one, other)
