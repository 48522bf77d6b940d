"""A draft's state and how operations change it: values only.

An operation *assigns* fields of the state, so that applying a journal is the same everywhere, and
undo is an operation that assigns what was there before. The mask on screen is always
``(proposal + drawn) - erased``; drawn and erased never overlap, so what was done last by hand wins.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from mlworker.contract import masks
from mlworker.contract.masks import RunLengths
from mlworker.contract.messages import Box, Digest, Identifier, Point


class DraftAction(StrEnum):
    """What an operation was, for the journal and the undo list; it applies the same."""

    PROMPT = "prompt"  # points or box, and the proposal that answered them
    DRAW = "draw"
    ERASE = "erase"
    CLEAR = "clear"
    UNDO = "undo"
    REDO = "redo"


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )


class Prompts(_Frozen):
    """What the annotator showed the model, in slice pixels."""

    points: tuple[Point, ...] = ()
    box: Box | None = None


class SealedProposal(_Frozen):
    """A mask the model proposed.

    ``seal`` is the server's, over all the rest and the slice and label, so that what a browser
    later saves as the model's work is known to be that.
    """

    proposal_id: Identifier
    mask: RunLengths
    predicted_iou: float
    model_digest: Digest
    prompts: Prompts
    seal: str


class DraftState(_Frozen):
    """What is on screen for one slice and label."""

    prompts: Prompts = Prompts()
    proposal: SealedProposal | None = None
    drawn: RunLengths | None = None
    erased: RunLengths | None = None


class DraftChanges(_Frozen):
    """The fields an operation assigns; a field that is absent stays as it is, null empties it."""

    # Here, unlike elsewhere, absence has a meaning: the schema must not demand every field.
    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    prompts: Prompts = Prompts()
    proposal: SealedProposal | None = None
    drawn: RunLengths | None = None
    erased: RunLengths | None = None


def apply(state: DraftState, changes: DraftChanges) -> DraftState:
    """The state after an operation."""
    return state.model_copy(
        update={name: getattr(changes, name) for name in changes.model_fields_set}
    )


def visible_mask(state: DraftState, *, height: int, width: int) -> masks.Mask:
    """The (height, width) mask on screen."""
    return masks.compose(
        _or_empty(state.proposal.mask if state.proposal else None, height, width),
        drawn=_or_empty(state.drawn, height, width),
        erased=_or_empty(state.erased, height, width),
    )


def hand_drawn_share(state: DraftState, *, height: int, width: int) -> float:
    """Share of the mask's and the proposal's pixels that a hand changed, 0 (none) to 1 (all)."""
    final = visible_mask(state, height=height, width=width)
    proposal = _or_empty(state.proposal.mask if state.proposal else None, height, width)
    touched = int((final | proposal).sum())
    return float((final ^ proposal).sum()) / touched if touched else 0.0


def _or_empty(runs: RunLengths | None, height: int, width: int) -> masks.Mask:
    return masks.decode(runs if runs is not None else masks.empty(height, width))
