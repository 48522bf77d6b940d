"""Acts on how a project learns, by people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO
from uuid import UUID

from django.db import transaction

from delineate import live, storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid, NotFound
from delineate.learning import comparing, promotion, selectors, splits, training
from delineate.learning.models import (
    Change,
    Comparison,
    LearningSettings,
    Part,
    Promotion,
    TrainingRun,
)
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import active_digest
from mlworker.contract.artifacts import checkpoint_key


def change_settings(project: Project, *, wanted: Mapping[str, Any], by: User) -> LearningSettings:
    """Let the project learn in another way; ``wanted`` are all of LearningSettings' fields."""
    require(by, Action.LEARN, project)
    with transaction.atomic():
        project = lock(project.id)
        settings = LearningSettings.of(project)
        before = _in_words(settings, wanted)
        for name, value in wanted.items():
            setattr(settings, name, value)
        settings.save()
        if (after := _in_words(settings, wanted)) != before:
            audit.learning_changed(project.id, by=by, before=before, after=after)
        live.tell(project.id, "learning")
    return settings


def give_part(project: Project, *, pseudonyms: Iterable[str], part: Part, by: User) -> None:
    """Learn from subjects, or hold them out, for ever.

    Raises NotFound ``unknown_subject``, Conflict ``part_given``.
    """
    require(by, Action.LEARN, project)
    wanted = set(pseudonyms)
    with transaction.atomic():
        project = lock(project.id)
        known = set(
            project.subjects.filter(pseudonym__in=wanted).values_list("pseudonym", flat=True)
        )
        if missing := sorted(wanted - known):
            raise NotFound(f"The project has no subject {missing[0]}.", code="unknown_subject")
        splits.give(project, wanted, part, by=by)
        live.tell(project.id, "learning")


def start_run(project: Project, *, by: User) -> TrainingRun:
    """Begin a run; raises RunUnderWay, NothingToLearn, Conflict ``no_model``."""
    require(by, Action.LEARN, project)
    return training.begin(project, by=by)


def cancel_run(run: TrainingRun, *, by: User) -> TrainingRun:
    """Stop a run; raises Conflict ``run_ended``, Unavailable."""
    require(by, Action.LEARN, run.project)
    return training.stop(run, by=by)


def promote(project: Project, *, digest: str | None, change: Change, by: User) -> Promotion:
    """Let another model answer in the project once its open tasks are prepared.

    Raises NotFound ``unknown_model``, Invalid ``no_model_named``, Conflict ``already_active``,
    ``nothing_to_roll_back_to``.
    """
    require(by, Action.LEARN, project)
    if change == Change.ROLL_BACK:
        model = promotion.roll_back_target(project)
        if model is None:
            raise Conflict(
                "No other model has answered in this project.", code="nothing_to_roll_back_to"
            )
    elif digest is None:
        raise Invalid("Say which model is to answer.", code="no_model_named")
    else:
        model = _model_of(project, digest)
    if model.digest == active_digest(project):
        raise Conflict("That model answers already.", code="already_active")
    run = project.runs.filter(candidate=model).first()
    return promotion.begin(project, model, change=change, by=by, run=run)


def compare(
    project: Project, *, first: str, second: str, run_id: UUID | None = None, by: User
) -> Comparison:
    """Compare two models on the masks that a run held out; without one, the last that held any.

    Raises NotFound ``unknown_model``, Conflict ``same_model``, ``nothing_held_out``.
    """
    require(by, Action.LEARN, project)
    models = [_model_of(project, digest) for digest in (first, second)]
    if first == second:
        raise Conflict("A model is what it is: choose two.", code="same_model")
    frozen = project.snapshots.filter(items__part=Part.HELD_OUT).distinct()
    snapshot = (frozen if run_id is None else frozen.filter(runs=run_id)).first()
    if snapshot is None:
        raise Conflict(
            "No mask was held out yet that models could be compared by.", code="nothing_held_out"
        )
    with transaction.atomic():
        comparison = Comparison.objects.create(
            project=project, snapshot=snapshot, first=models[0], second=models[1], by=by
        )
        comparing.send(comparison)
    return comparison


def open_checkpoint(project: Project, *, digest: str, by: User) -> BinaryIO:
    """A model's file, its leaving recorded; NotFound ``unknown_model``."""
    require(by, Action.LEARN, project)
    model = _model_of(project, digest)
    file = storage.open_for_reading(checkpoint_key(model.digest))
    with transaction.atomic():
        audit.model_downloaded(project.id, model.digest, by=by)
    return file


def _model_of(project: Project, digest: str) -> ModelVersion:
    for model in selectors.models_that_may_answer(project):
        if model.digest == digest:
            return model
    raise NotFound("The project has no such model.", code="unknown_model")


def _in_words(settings: LearningSettings, names: Iterable[str]) -> str:
    return ", ".join(f"{name}: {getattr(settings, name)}" for name in sorted(names))
