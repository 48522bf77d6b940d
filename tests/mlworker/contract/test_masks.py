from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from mlworker.contract import masks
from mlworker.contract.masks import RunLengths

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
MASKS = arrays.arrays(bool, SHAPES)


@given(MASKS)
def test_a_mask_comes_back_from_its_run_lengths(mask):
    assert np.array_equal(masks.decode(masks.encode(mask)), mask)


@given(MASKS)
def test_run_lengths_are_the_one_form_of_a_mask(mask):
    runs = masks.encode(mask)

    assert RunLengths.model_validate(runs.model_dump()) == runs  # encode does not validate
    assert all(count > 0 for count in runs.counts[1:])
    assert sum(runs.counts) == mask.size
    assert masks.area(runs) == mask.sum()
    assert masks.encode(masks.decode(runs)) == runs


@given(MASKS)
def test_a_view_is_encoded_like_its_copy(mask):
    assert masks.encode(mask.T) == masks.encode(mask.T.copy())
    assert masks.encode(mask[::-1, ::-1]) == masks.encode(mask[::-1, ::-1].copy())


@given(st.data())
def test_what_is_drawn_by_hand_wins(data):
    shape = data.draw(SHAPES)
    proposal, drawn, erased = (data.draw(arrays.arrays(bool, shape)) for _ in range(3))

    seen = masks.compose(proposal, drawn=drawn, erased=erased)

    assert not seen[erased].any()
    assert seen[drawn & ~erased].all()
    assert np.array_equal(seen[~drawn & ~erased], proposal[~drawn & ~erased])


def test_rows_are_read_first():
    mask = np.zeros((2, 3), bool)
    mask[0, 2] = mask[1, 0] = True

    assert masks.encode(mask).counts == (2, 2, 2)
    assert masks.encode(~mask).counts == (0, 2, 2, 2)
    assert masks.encode(np.zeros((2, 3), bool)) == masks.empty(2, 3)


@pytest.mark.parametrize("counts", [(), (5,), (7,), (-1, 7), (3, 0, 3), (6, 0)])
def test_run_lengths_that_do_not_tile_the_slice_are_refused(counts):
    with pytest.raises(ValidationError):
        RunLengths(height=2, width=3, counts=counts)
