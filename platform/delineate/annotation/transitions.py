"""Where a task may go from where it is: the whole table. Every other move is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from delineate.errors import Conflict


class State(StrEnum):
    """Where a task stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    SUBMITTED = "submitted"
    RETURNED = "returned"
    ACCEPTED = "accepted"


class Move(StrEnum):
    """What can be done to a task."""

    BEGIN = "begin"  # by the first operation
    SUBMIT = "submit"
    ACCEPT = "accept"
    RETURN = "return"
    REOPEN = "reopen"


@dataclass(frozen=True)
class Transition:
    """A legal move."""

    after: State
    by_reviewer: bool = False  # else by whoever may annotate


TABLE: Final[Mapping[tuple[State, Move], Transition]] = MappingProxyType(
    {
        (State.OPEN, Move.BEGIN): Transition(State.IN_PROGRESS),
        (State.IN_PROGRESS, Move.SUBMIT): Transition(State.SUBMITTED),
        (State.RETURNED, Move.SUBMIT): Transition(State.SUBMITTED),
        (State.SUBMITTED, Move.ACCEPT): Transition(State.ACCEPTED, by_reviewer=True),
        (State.SUBMITTED, Move.RETURN): Transition(State.RETURNED, by_reviewer=True),
        (State.ACCEPTED, Move.REOPEN): Transition(State.IN_PROGRESS, by_reviewer=True),
    }
)
# In these, drafts may change and masks be accepted.
EDITABLE: Final = frozenset({State.OPEN, State.IN_PROGRESS, State.RETURNED})

_IN_WORDS: Final[Mapping[State, str]] = {
    State.OPEN: "has not been begun",
    State.IN_PROGRESS: "is being worked on",
    State.SUBMITTED: "is waiting for its review",
    State.RETURNED: "has been returned for correction",
    State.ACCEPTED: "has been accepted",
}


def state_after(state: State, move: Move) -> State:
    """Where ``move`` leads; Conflict ``illegal_move`` where it is not in the table."""
    transition = TABLE.get((state, move))
    if transition is None:
        raise Conflict(
            f"The task {_IN_WORDS[state]}; it cannot be {_PAST[move]} now.",
            code="illegal_move",
            state=state,
            move=move,
        )
    return transition.after


def moves_from(state: State, *, may_annotate: bool, may_review: bool) -> list[Move]:
    """The moves a person can make by a button."""
    return [
        move
        for (before, move), transition in TABLE.items()
        if before is state
        and move is not Move.BEGIN
        and (may_review if transition.by_reviewer else may_annotate)
    ]


def require_editable(state: State) -> None:
    """Conflict ``task_closed`` while a task is with its reviewer, or accepted."""
    if state not in EDITABLE:
        raise Conflict(
            f"The task {_IN_WORDS[state]}; its masks cannot be changed now.",
            code="task_closed",
            state=state,
        )


_PAST: Final[Mapping[Move, str]] = {
    Move.BEGIN: "begun",
    Move.SUBMIT: "submitted",
    Move.ACCEPT: "accepted",
    Move.RETURN: "returned",
    Move.REOPEN: "reopened",
}
