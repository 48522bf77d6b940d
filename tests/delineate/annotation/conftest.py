"""A task on three slices of 8 x 10 pixels, and short ways to change its drafts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import pytest

from delineate.accounts.models import User
from delineate.annotation import seal, services
from delineate.annotation.drafts import DraftAction, DraftChanges, Prompts, SealedProposal
from delineate.annotation.models import Task
from delineate.annotation.services import ClientSequence
from delineate.annotation.transitions import State
from delineate.projects.models import Label, Role
from mlworker.contract import masks
from mlworker.contract.masks import RunLengths
from mlworker.contract.messages import Point
from tests.delineate import factories

ROWS, COLUMNS = 8, 10
MODEL = "ab" * 32


def runs(*pixels: tuple[int, int]) -> RunLengths:
    """Run lengths of these (row, column) pixels."""
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    for row, column in pixels:
        mask[row, column] = True
    return masks.encode(mask)


@dataclass
class Desk:
    """An annotator at a task."""

    task: Task
    label: Label
    annotator: User
    reviewer: User
    client_id: UUID = field(default_factory=uuid.uuid4)
    sequence: int = 0

    def slice_id(self, index: int = 0) -> UUID:
        """The slice's id."""
        return self.task.series.slices.get(index=index).id

    def apply(
        self,
        changes: DraftChanges,
        *,
        base: int,
        action: DraftAction = DraftAction.DRAW,
        index: int = 0,
        sequence: int | None = None,
        by: User | None = None,
    ) -> int:
        """An operation on a slice's draft; its version."""
        if sequence is None:
            self.sequence += 1
        return services.apply_operation(
            self.task,
            slice_id=self.slice_id(index),
            label_id=self.label.id,
            numbered=ClientSequence(self.client_id, sequence or self.sequence),
            base=base,
            action=action,
            changes=changes,
            by=by or self.annotator,
        )

    def proposal(self, mask: RunLengths, *, index: int = 0) -> SealedProposal:
        """What the model would have proposed, with the server's seal."""
        made = SealedProposal(
            proposal_id=str(uuid.uuid4()),
            mask=mask,
            predicted_iou=0.5,
            model_digest=MODEL,
            prompts=Prompts(points=(Point(x=1, y=1, positive=True),)),
            seal="",
        )
        return seal.seal(made, slice_id=self.slice_id(index), label_id=self.label.id)

    def accept(self, *, version: int, index: int = 0, seconds: float = 2.5):
        """Freeze a slice's draft."""
        return services.accept_draft(
            self.task,
            slice_id=self.slice_id(index),
            label_id=self.label.id,
            version=version,
            active_seconds=seconds,
            by=self.annotator,
        )


@pytest.fixture
def desk(db) -> Desk:
    """An open task of the project "Livers" with the label liver."""
    project = factories.new_project("liver", "spleen")
    series = factories.new_series(factories.new_study(project))
    return Desk(
        task=factories.new_task(series, state=State.OPEN),
        label=factories.label_of(project, "liver"),
        annotator=factories.new_member(project, Role.ANNOTATOR),
        reviewer=factories.new_member(project, Role.REVIEWER),
    )
