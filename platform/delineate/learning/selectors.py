"""Reads of how a project learns, as pages show it."""

from __future__ import annotations

import io
import zipfile
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from delineate import storage
from delineate.accounts.models import User
from delineate.annotation.models import MaskRevision
from delineate.errors import Conflict, NotFound
from delineate.jobs import JobState
from delineate.learning import agreement, erased, promotion, snapshot, splits, training
from delineate.learning.card import card
from delineate.learning.models import (
    Comparison,
    LearningSettings,
    Part,
    Promotion,
    Ranking,
    Snapshot,
    TrainingRun,
)
from delineate.projects.models import Project
from delineate.projects.selectors import projects_of
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import active_digest
from delineate.studies.models import Slice
from delineate.studies.selectors import not_held
from mlworker.contract.artifacts import run_prefix
from mlworker.contract.learning import EvaluatedMask, EvaluationResults

SETTINGS = (
    "schedule",
    "every_masks",
    "window_from",
    "window_until",
    "budget_minutes",
    "trainable",
    "parent",
    "epochs",
    "learning_rate",
    "automatic",
    "confidence",
    "tolerance",
    "held_out_share",
)


def learning_of(project: Project) -> dict[str, Any]:
    """How a project learns, and what there is to learn from."""
    settings = LearningSettings.of(project)
    masks = snapshot.masks_by_subject(project)
    parts = splits.known(project)
    _, sentence = training.due(project)
    return {
        "settings": {name: getattr(settings, name) for name in SETTINGS},
        **{
            str(part): {
                "subjects": sum(parts.get(name) == part for name in masks),
                "masks": sum(count for name, count in masks.items() if parts.get(name) == part),
            }
            for part in Part
        },
        "unassigned_subjects": sum(name not in parts for name in masks),
        "new_masks": training.new_masks(project),
        "refusal": training.refusal(project),
        "due": sentence,
        "fallen": agreement.fallen(project, today=timezone.now().date()),
    }


def parts_of(project: Project) -> list[dict[str, Any]]:
    """All subjects with their parts, and how many masks there are to learn from."""
    masks, parts = snapshot.masks_by_subject(project), splits.known(project)
    names = project.subjects.values_list("pseudonym", flat=True)
    return [
        {"pseudonym": name, "part": parts.get(name), "masks": masks.get(name, 0)} for name in names
    ]


def runs_of(project: Project) -> QuerySet[TrainingRun]:
    """A project's runs, the newest first."""
    return project.runs.select_related("parent", "candidate", "opponent", "by")


def run_for(user: User | AnonymousUser, run_id: UUID) -> TrainingRun:
    """A run, for members of its project; NotFound for everybody else."""
    run = (
        TrainingRun.objects.filter(id=run_id, project__in=projects_of(user))
        .select_related("project", "snapshot", "parent", "candidate", "opponent", "by")
        .first()
    )
    if run is None:
        raise NotFound("There is no such run, or you are not a member of its project.")
    return run


def run_line(run: TrainingRun) -> dict[str, Any]:
    """A run as a list shows it."""
    return {
        **{
            name: getattr(run, name)
            for name in (
                *("id", "number", "state", "stage", "created_at", "started_at", "finished_at"),
                *("epoch", "step", "of_steps", "eta_s", "seconds", "evaluated", "to_evaluate"),
                *("stop_wanted", "error_code", "error_message"),
            )
        },
        "by": _name(run.by),
        "parent": _ref(run.parent),
        "candidate": _ref(run.candidate),
        "opponent": _ref(run.opponent),
        "verdict": run.verdict or None,
    }


def run_details(run: TrainingRun) -> dict[str, Any]:
    """A run with its curve, log and judgement."""
    counts = _parts_in(run.snapshot)
    return run_line(run) | {
        "curve": run.curve,
        "log": run.log,
        "recipe": run.recipe,
        "judgement": run.judgement or None,
        **counts,
        "near_duplicates": len(run.snapshot.near_duplicates) if run.snapshot else 0,
        "snapshot_digest": run.snapshot.digest if run.snapshot else "",
    }


def run_log(run: TrainingRun) -> bytes:
    """A run's events and its curves for TensorBoard, as a zip; Conflict ``no_log``."""
    prefix = run_prefix(str(run.id))
    kept = [
        key
        for key in storage.list_keys(prefix)
        if key.startswith(f"{prefix}tensorboard/") or key == f"{prefix}events.jsonl"
    ]
    if not kept:
        raise Conflict("The run has not told anything yet.", code="no_log")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in sorted(kept):
            archive.writestr(f"run-{run.number}/{key.removeprefix(prefix)}", storage.get(key))
    return content.getvalue()


def models_that_may_answer(project: Project) -> QuerySet[ModelVersion]:
    """Those the project made or used, and the installation's own: not other projects'."""
    of_others = TrainingRun.objects.exclude(project=project).filter(candidate__isnull=False)
    return ModelVersion.objects.filter(
        Q(runs__project=project)
        | Q(deployments__project=project)
        | ~Q(digest__in=of_others.values("candidate"))
    ).distinct()


def models_of(project: Project) -> list[dict[str, Any]]:
    """The models that may answer in a project, the newest first."""
    active = active_digest(project)
    target = promotion.roll_back_target(project)
    runs = {run.candidate_id: run for run in project.runs.filter(candidate__isnull=False)}
    answered: dict[str, list[dict[str, Any]]] = {}
    for each in project.deployments.select_related("by"):
        answered.setdefault(each.model_id, []).append(
            {"since": each.since, "until": each.until, "by": _name(each.by)}
        )
    found = []
    for model in models_that_may_answer(project).order_by("-created_at"):
        run = runs.get(model.digest)
        found.append(
            {
                "digest": model.digest,
                "name": model.name,
                "variant": model.variant,
                "trained": model.trained,
                "parent": model.parent,
                "created_at": model.created_at,
                "is_active": model.digest == active,
                "is_roll_back": target is not None and model.digest == target.digest,
                "is_default": model.is_default,
                "run_id": run.id if run else None,
                "verdict": (run.verdict or None) if run else None,
                "metrics": _metrics(run) if run else model.metrics,
                "answered": answered.get(model.digest, []),
                "trained_on_erased": erased.has_learnt_from_erased(model),
            }
        )
    return found


def promotions_of(project: Project) -> list[dict[str, Any]]:
    """Changes of the model, the newest first."""
    return [promotion_line(each) for each in project.promotions.select_related("model", "by")]


def promotion_line(promotion: Promotion) -> dict[str, Any]:
    """A change of the model."""
    return {
        **{
            name: getattr(promotion, name)
            for name in (
                *("id", "change", "state", "created_at", "finished_at", "prepared", "total"),
            )
        },
        "model": _ref(promotion.model),
        "by": _name(promotion.by),
    }


def comparison_for(user: User | AnonymousUser, comparison_id: UUID) -> Comparison:
    """A comparison, for members of its project; NotFound for everybody else."""
    comparison = (
        Comparison.objects.filter(id=comparison_id, project__in=projects_of(user))
        .select_related("project", "first", "second")
        .first()
    )
    if comparison is None:
        raise NotFound("There is no such comparison, or you are not a member of its project.")
    return comparison


def comparisons_of(project: Project) -> QuerySet[Comparison]:
    """A project's comparisons, the newest first."""
    return project.comparisons.select_related("first", "second")


def comparison_line(comparison: Comparison) -> dict[str, Any]:
    """How far a comparison has come, and what it says."""
    return {
        **{
            name: getattr(comparison, name)
            for name in ("id", "state", "done", "of", "created_at", "error_message")
        },
        "first": _ref(comparison.first),
        "second": _ref(comparison.second),
        "judgement": comparison.judgement or None,
    }


def compared_masks(comparison: Comparison, *, limit: int) -> list[dict[str, Any]]:
    """The masks on which two models differ most; Conflict ``not_ready``."""
    if comparison.state != JobState.DONE:
        raise Conflict("The comparison is not finished yet.", code="not_ready")
    results = EvaluationResults.model_validate_json(storage.get(comparison.results_key))
    of: dict[str, dict[str, EvaluatedMask]] = {}
    for row in results.rows:
        of.setdefault(row.revision_id, {})[row.model_digest] = row
    pairs = [
        (found[comparison.first_id], found[comparison.second_id])
        for found in of.values()
        if len(found) == 2
    ]
    pairs.sort(key=lambda pair: -abs(pair[1].dice - pair[0].dice))
    revisions = {
        str(revision.id): revision
        for revision in snapshot.accepted(UUID(first.revision_id) for first, _ in pairs[:limit])
    }
    return [
        {
            "slice_id": revision.slice_id,
            "series_id": revision.slice.series_id,
            "index": revision.slice.index,
            "task_id": revision.task_id,
            "picture": picture_of(revision.slice, project=comparison.project),
            "label": revision.label.name,
            "color": revision.label.color,
            "subject": revision.slice.series.study.subject.pseudonym,
            "accepted": revision.mask,
            "first": first.mask,
            "second": second.mask,
            "first_dice": first.dice,
            "second_dice": second.dice,
        }
        for first, second in pairs[:limit]
        if (revision := revisions.get(first.revision_id)) is not None  # else somebody is erased
    ]


def picture_of(slice_: Slice, *, project: Project) -> str:
    """Address of a slice as a picture (WADO-RS); its instance, series and study at hand."""
    series = slice_.series
    return (
        f"/dicomweb/{project.id}/studies/{series.study.study_uid}/series/{series.series_uid}"
        f"/instances/{slice_.instance.sop_instance_uid}/frames/{slice_.frame_number}/rendered"
    )


def rankings_of(project: Project) -> QuerySet[Ranking]:
    """A project's rankings, the newest first."""
    return project.rankings.select_related("model")


def ranking_for(user: User | AnonymousUser, ranking_id: UUID) -> Ranking:
    """A ranking, for members of its project; NotFound for everybody else."""
    ranking = (
        Ranking.objects.filter(id=ranking_id, project__in=projects_of(user))
        .select_related("project", "model")
        .first()
    )
    if ranking is None:
        raise NotFound("There is no such ranking, or you are not a member of its project.")
    return ranking


def ranking_line(ranking: Ranking) -> dict[str, Any]:
    """How far a ranking has come."""
    return {
        **{
            name: getattr(ranking, name)
            for name in (
                *("id", "strategy", "state", "scored", "total", "created_at", "finished_at"),
                *("error_code", "error_message"),
            )
        },
        "model": _ref(ranking.model),
    }


def ranked_slices(ranking: Ranking, *, limit: int) -> list[dict[str, Any]]:
    """The first slices of a ranking; ``done``: somebody has annotated it since."""
    accepted = MaskRevision.objects.filter(slice=OuterRef("slice"))
    ranked = (
        ranking.slices.filter(not_held("slice__series__"))
        .select_related("slice__series__study__subject", "slice__series__task", "slice__instance")
        .annotate(done=Exists(accepted))
    )
    return [
        {
            "position": each.position,
            "slice_id": each.slice_id,
            "series_id": each.slice.series_id,
            "task_id": each.slice.series.task.id,
            "picture": picture_of(each.slice, project=ranking.project),
            "subject": each.slice.series.study.subject.pseudonym,
            "index": each.slice.index,
            "score": each.score,
            "reason": each.reason,
            "done": vars(each)["done"],  # found by the query
        }
        for each in ranked[:limit]
    ]


def helping(project: Project) -> list[dict[str, Any]]:
    """What an accepted mask cost under each model."""
    return agreement.periods(project)


def drift(project: Project) -> list[dict[str, Any]]:
    """Weekly agreement of first proposals with what was accepted."""
    return agreement.drift(project, today=timezone.now().date())


def card_of(project: Project, *, digest: str) -> str:
    """A model's card; NotFound ``unknown_model``."""
    model = models_that_may_answer(project).filter(digest=digest).first()
    if model is None:
        raise NotFound("The project has no such model.", code="unknown_model")
    run = project.runs.filter(candidate=model).select_related("snapshot", "opponent").first()
    answered = [
        f"from {each.since:%Y-%m-%d %H:%M} UTC"
        + (f" until {each.until:%Y-%m-%d %H:%M} UTC" if each.until else " on")
        + f", by {_name(each.by) or 'the project’s own rule'}"
        for each in project.deployments.filter(model=model).select_related("by").order_by("since")
    ]
    return card(model, run, answered=answered)


def _parts_in(frozen: Snapshot | None) -> dict[str, dict[str, int]]:
    counts = {str(part): {"subjects": 0, "masks": 0} for part in Part}
    if frozen is not None:
        for part, subjects, masks in (
            frozen.items.order_by()
            .values_list("part")
            .annotate(subjects=Count("pseudonym", distinct=True), masks=Count("id"))
        ):
            counts[part] = {"subjects": subjects, "masks": masks}
    return counts


def _metrics(run: TrainingRun) -> dict[str, float]:
    """Of the gate's evaluation, over all labels."""
    labels = run.judgement.get("labels") or []
    if not labels:
        return {}
    overall = labels[0]
    return {
        "dice": overall["candidate_dice"],
        **{f"noc_{target}": value for target, value in overall["candidate_noc"].items()},
    }


def _ref(model: ModelVersion | None) -> dict[str, str] | None:
    return None if model is None else {"digest": model.digest, "name": model.name}


def _name(user: User | None) -> str | None:
    return None if user is None else user.display_name
