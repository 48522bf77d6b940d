"""Projects with accepted masks of several subjects, and what the worker would tell of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from delineate.annotation.models import MaskRevision
from delineate.learning.models import TrainingRun
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion
from mlworker.contract import masks
from mlworker.contract.learning import (
    EvaluatedMask,
    EvaluationResults,
    NewCheckpoint,
    TrainingEnded,
)
from tests.delineate import factories

CANDIDATE = "cd" * 32


@pytest.fixture
def model(db: None) -> ModelVersion:
    """The default model."""
    return factories.new_model()


@pytest.fixture
def project(model: ModelVersion) -> Project:
    """Eight subjects, each with a reviewed task of three masks of a liver."""
    made = factories.new_project("liver")
    for number in range(8):
        add_subject(made, f"S-{number:012}")
    return made


def add_subject(
    project: Project, pseudonym: str, *, labels: Iterable[str] = ("liver",)
) -> list[MaskRevision]:
    """A reviewed task of three slices, each label drawn on all."""
    study = factories.new_study(project, pseudonym=pseudonym)
    seed = int.from_bytes(pseudonym.encode()[-4:], "big")
    pixels = np.random.default_rng(seed).integers(-1000, 1000, (3, 8, 10), dtype=np.int16)
    task = factories.new_task(factories.new_series(study, pixels=pixels))
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True
    return [
        factories.accept_mask(task, mask, index=index, label=factories.label_of(project, label))
        for label in labels
        for index in range(3)
    ]


def rows_of(
    model: str,
    dice: float,
    *,
    subjects: int = 8,
    masks_each: int = 3,
    label: str = "liver",
    spread: float = 0.02,
) -> list[EvaluatedMask]:
    """Results of one model, around a Dice that differs from subject to subject."""
    rows = []
    for subject in range(subjects):
        for number in range(masks_each):
            reached = dice + spread * ((subject % 3) - 1)
            rows.append(
                EvaluatedMask(
                    revision_id=f"{subject:08x}-{number:04x}-4000-8000-{sum(label.encode()):012x}",
                    slice_id=f"{subject:08x}-{number:04x}-4000-8000-000000000000",
                    model_digest=model,
                    label=label,
                    subject=f"S-{subject:012}",
                    dice=reached,
                    mask=masks.empty(8, 10),
                    dice_after=(reached, min(1.0, reached + 0.1), min(1.0, reached + 0.2)),
                )
            )
    return rows


def ended(run: TrainingRun, *, digest: str = CANDIDATE, **more: object) -> TrainingEnded:
    """The worker's word for a model that came of a run."""
    return TrainingEnded.model_validate(
        {
            "run_id": str(run.id),
            "attempt": run.attempt,
            "state": "finished",
            "steps": 40,
            "seconds": 12.5,
            "checkpoint": NewCheckpoint(
                digest=digest,
                variant="vit_t",
                image_size=256,
                adapters=True,
                preparation=1,
                origin="fine-tuned",
                parent=run.parent_id,
                training_data="0" * 64,
                code_version="1",
            ),
            **more,
        }
    )


def results(run: TrainingRun, *, gain: float) -> EvaluationResults:
    """What both models make of the run's own held-out masks."""
    assert run.snapshot is not None
    assert run.opponent_id is not None
    rows = []
    for number, item in enumerate(run.snapshot.items.filter(part="held_out")):
        for digest, dice in ((run.opponent_id, 0.7), (run.candidate_id, 0.7 + gain)):
            reached = dice + 0.01 * (number % 3)
            rows.append(
                EvaluatedMask(
                    revision_id=str(item.revision_id),
                    slice_id=str(item.slice_id),
                    model_digest=digest,
                    label=item.label,
                    subject=item.pseudonym,
                    dice=reached,
                    mask=masks.empty(8, 10),
                    dice_after=(reached,),
                )
            )
    return EvaluationResults(rows=tuple(rows))
