"""Fine-tunings, evaluations and scores without a model, for `null_worker`.

Every model answers every mask equally well: by half where nobody has fine-tuned it, and the better
the longer it was trained, which is what its checkpoint says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from mlworker.contract import artifacts
from mlworker.contract.artifacts import ArtifactError
from mlworker.contract.learning import (
    Evaluate,
    EvaluatedMask,
    EvaluationEnded,
    EvaluationProgress,
    EvaluationResults,
    FineTune,
    LearningEvent,
    LearningImage,
    LearningSet,
    NewCheckpoint,
    Part,
    ScoreItem,
    ScoreSlices,
    SliceScore,
    SlicesScored,
    StoredSet,
    TrainingEnded,
    TrainingProgress,
)
from mlworker.contract.ranking import FEATURES, pack_features
from mlworker.storage import Store

UNTRAINED: Final = 0.5  # Dice of a model that nobody has fine-tuned
_SKILLED_AFTER: Final = 8  # steps, which halve what is missing


def fine_tuned(
    command: FineTune, *, store: Store, shall_stop: Callable[[], object]
) -> Iterator[LearningEvent]:
    """Progress and the end; the checkpoint is the number of its steps, and where it came from."""
    own = {"run_id": command.run_id, "attempt": command.attempt}
    yield TrainingProgress(**own)
    try:
        images = _read(command.data, store=store, part="train")
    except ArtifactError as error:
        yield TrainingEnded(
            **own, state="failed", code="artifact_invalid", message=_sentence(error)
        )
        return
    of_epoch = -(-len(images) // command.recipe.images)
    steps = min(command.recipe.epochs * of_epoch, command.recipe.most_steps or 10**9)
    if shall_stop():
        yield TrainingEnded(**own, state="stopped")
        return
    yield TrainingProgress(
        **own, epoch=1, step=steps, of_steps=steps, loss=1.0, dice=_skill(steps), eta_s=0.0
    )
    described = {"steps": steps, "parent": command.parent_digest, "data": command.data.digest}
    content = json.dumps(described).encode()
    digest = hashlib.sha256(content).hexdigest()
    store.put(artifacts.checkpoint_key(digest), content)
    yield TrainingEnded(
        **own,
        state="finished",
        steps=steps,
        seconds=1.0,
        checkpoint=NewCheckpoint(
            digest=digest,
            variant="vit_t",
            image_size=256,
            adapters=False,
            preparation=1,
            origin=f"fine-tuned, {steps} steps",
            parent=command.parent_digest,
            training_data=command.data.digest,
            code_version="null",
        ),
    )


def evaluated(command: Evaluate, *, store: Store) -> Iterator[LearningEvent]:
    """Progress and the end; the results are in the store in between."""
    own = {"evaluation_id": command.evaluation_id, "attempt": command.attempt}
    yield EvaluationProgress(**own, done=0, of=0)
    try:
        images = _read(command.data, store=store, part=command.part)
    except ArtifactError as error:
        yield EvaluationEnded(**own, code="artifact_invalid", message=_sentence(error))
        return
    rows = tuple(
        EvaluatedMask(
            revision_id=mask.revision_id,
            slice_id=image.slice_id,
            model_digest=digest,
            label=mask.label,
            subject=image.subject,
            dice=(skill := _skill(_steps(digest, store=store))),
            mask=mask.mask,
            dice_after=(skill,) * command.clicks,
        )
        for digest in command.model_digests
        for image in images
        for mask in image.masks
    )
    of = len(images) * len(command.model_digests)
    yield EvaluationProgress(**own, done=of, of=of)
    results = EvaluationResults(rows=rows)
    store.put(artifacts.evaluation_key(command.evaluation_id), results.model_dump_json().encode())
    yield EvaluationEnded(**own)


def scored(command: ScoreSlices, *, store: Store) -> SlicesScored:
    """By the digests of pixels: the same slice, the same score."""
    return SlicesScored(
        ranking_id=command.ranking_id,
        model_digest=command.model_digest,
        slices=tuple(_score(item, command=command, store=store) for item in command.items),
    )


def _score(item: ScoreItem, *, command: ScoreSlices, store: Store) -> SliceScore:
    key = artifacts.embedding_key(item.image, model_digest=command.model_digest)
    if not store.exists(key):
        return SliceScore(slice_id=item.slice_id, code="not_prepared", message="Not prepared.")
    chance = np.random.default_rng(int(item.image.pixels_digest[:8], 16))
    sure, disagreement, instability = chance.random(3)
    return SliceScore(
        slice_id=item.slice_id,
        predicted_iou=sure,
        disagreement=disagreement,
        instability=instability,
        features=pack_features(chance.random(FEATURES, np.float32)),
    )


def _read(data: StoredSet, *, store: Store, part: Part) -> list[LearningImage]:
    """One part of a set; raises ArtifactError."""
    content = store.get(data.key)
    if hashlib.sha256(content).hexdigest() != data.digest:
        raise ArtifactError("the learning set is not what was stored")
    return [item for item in LearningSet.model_validate_json(content).items if item.part == part]


def _steps(digest: str, *, store: Store) -> int:
    """Of a model's own training; none for one that was not made here."""
    try:
        return int(json.loads(store.get(artifacts.checkpoint_key(digest)))["steps"])
    except (ArtifactError, ValueError, KeyError, TypeError):
        return 0


def _skill(steps: int) -> float:
    missing = _SKILLED_AFTER / (steps + _SKILLED_AFTER)
    return 1 - (1 - UNTRAINED) * missing


def _sentence(error: ArtifactError) -> str:
    return f"What is stored is of no use: {error}."
