from __future__ import annotations

import itertools

import pytest

from delineate.annotation.transitions import (
    EDITABLE,
    Move,
    State,
    moves_from,
    require_editable,
    state_after,
)
from delineate.errors import Conflict

LEGAL = {
    (State.OPEN, Move.BEGIN): State.IN_PROGRESS,
    (State.IN_PROGRESS, Move.SUBMIT): State.SUBMITTED,
    (State.RETURNED, Move.SUBMIT): State.SUBMITTED,
    (State.SUBMITTED, Move.ACCEPT): State.ACCEPTED,
    (State.SUBMITTED, Move.RETURN): State.RETURNED,
    (State.ACCEPTED, Move.REOPEN): State.IN_PROGRESS,
}


@pytest.mark.parametrize(("state", "move"), list(itertools.product(State, Move)))
def test_every_move_leads_where_it_should_or_is_refused_by_name(state: State, move: Move) -> None:
    if (state, move) in LEGAL:
        assert state_after(state, move) is LEGAL[state, move]
    else:
        with pytest.raises(Conflict) as refusal:
            state_after(state, move)
        assert refusal.value.code == "illegal_move"


@pytest.mark.parametrize(
    ("state", "annotates", "reviews"),
    [
        (State.OPEN, [], []),
        (State.IN_PROGRESS, [Move.SUBMIT], []),
        (State.RETURNED, [Move.SUBMIT], []),
        (State.SUBMITTED, [], [Move.ACCEPT, Move.RETURN]),
        (State.ACCEPTED, [], [Move.REOPEN]),
    ],
)
def test_a_person_is_offered_the_moves_their_role_includes(
    state: State, annotates: list[Move], reviews: list[Move]
) -> None:
    assert moves_from(state, may_annotate=True, may_review=False) == annotates
    assert moves_from(state, may_annotate=False, may_review=True) == reviews
    assert moves_from(state, may_annotate=True, may_review=True) == annotates + reviews
    assert moves_from(state, may_annotate=False, may_review=False) == []


@pytest.mark.parametrize("state", State)
def test_masks_change_only_while_nobody_reviews_them(state: State) -> None:
    if state in EDITABLE:
        require_editable(state)
    else:
        with pytest.raises(Conflict) as refusal:
            require_editable(state)
        assert refusal.value.code == "task_closed"
    assert {State.SUBMITTED, State.ACCEPTED} == set(State) - EDITABLE
