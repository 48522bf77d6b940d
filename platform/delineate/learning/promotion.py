"""Another model answers in a project, without a pause, and the way back.

Open tasks get the new model's embeddings first; when they have them the model answers whoever opens
a session from then on. Sessions in progress keep theirs, and both models are served. The embeddings
of the model before stay, so that a roll-back takes no longer than the act; those of older ones are
taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from delineate import live, storage
from delineate.accounts.models import User
from delineate.annotation.models import Draft
from delineate.annotation.transitions import EDITABLE
from delineate.jobs import JobState
from delineate.learning.models import Promotion, PromotionState, TrainingRun
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.registry.jobs import deploy
from delineate.registry.models import Deployment, ModelVersion
from delineate.registry.selectors import active_digest, default_model
from delineate.studies import encoding
from delineate.studies.models import Encoding, Slice
from delineate.studies.selectors import not_held
from mlworker.contract import broker

# Whoever opened a session before a model was replaced may still be at work with it.
KEPT_FOR_SESSIONS: Final = timedelta(hours=12)
REQUESTED_AT_ONCE: Final = 2000


def begin(
    project: Project,
    model: ModelVersion,
    *,
    change: str,
    by: User | None,
    run: TrainingRun | None = None,
) -> Promotion:
    """Prepare a model for a project's open tasks, and let it answer once they are."""
    with transaction.atomic():
        project = lock(project.id)
        now = timezone.now()
        project.promotions.filter(state=PromotionState.PREPARING).update(
            state=PromotionState.REPLACED, finished_at=now
        )
        promotion = Promotion.objects.create(
            project=project, model=model, change=change, by=by, run=run
        )
        _advance(promotion)
    return promotion


def sweep() -> None:
    """Bring what is being prepared further, and take back embeddings of models long replaced."""
    preparing = Promotion.objects.filter(state=PromotionState.PREPARING)
    for promotion_id, project_id in preparing.values_list("id", "project_id"):
        with transaction.atomic():
            lock(project_id)
            promotion = preparing.select_related("project", "model", "by").filter(id=promotion_id)
            if (still := promotion.first()) is not None:
                _advance(still)
    for project in Project.objects.filter(deployments__isnull=False).distinct():
        _collect(project)


def roll_back_target(project: Project) -> ModelVersion | None:
    """The model that answered before the one that does; the default one before the first."""
    closed = project.deployments.exclude(until=None).order_by("-until").select_related("model")
    active = active_digest(project)
    for deployment in closed:
        if deployment.model_id != active:
            return deployment.model
    default = default_model()
    return default if default is not None and default.digest != active else None


def _advance(promotion: Promotion) -> None:
    """The caller holds the project."""
    wanted = _open_slices(promotion.project)
    made = Encoding.objects.filter(slice__in=wanted.values("id"), model_digest=promotion.model_id)
    promotion.total = wanted.count()
    promotion.prepared = made.filter(state=JobState.DONE).count()
    # What cannot be encoded is no reason to wait for ever.
    settled = made.filter(state__in=[JobState.DONE, JobState.FAILED]).count()
    if settled >= promotion.total:
        promotion.state, promotion.finished_at = PromotionState.DONE, timezone.now()
        deploy(promotion.model, promotion.project, by=promotion.by, change=str(promotion.change))
    else:
        missing = wanted.exclude(encodings__model_digest=promotion.model_id)
        _request(missing.values_list("id", flat=True)[:REQUESTED_AT_ONCE], promotion.model_id)
    promotion.save()
    live.tell(
        promotion.project_id,
        "promotion",
        id=promotion.id,
        state=str(promotion.state),
        prepared=promotion.prepared,
        total=promotion.total,
    )


def _request(slice_ids: Iterable[UUID], digest: str) -> None:
    if ids := list(slice_ids):
        encoding.request(ids, model_digest=digest, priority=broker.PRIORITY_LATER)


def _open_slices(project: Project) -> QuerySet[Slice]:
    """The slices of tasks that can be worked on, those first that somebody has begun."""
    begun = Draft.objects.filter(task__series=OuterRef("series"))
    return (
        Slice.objects.filter(
            not_held("series__"),
            series__study__project=project,
            series__task__state__in=EDITABLE,
        )
        .annotate(is_begun=Exists(begun))
        .order_by("-is_begun", "series__task__created_at", "index")
    )


def _collect(project: Project) -> None:
    preparing = project.promotions.filter(state=PromotionState.PREPARING)
    lately = Deployment.objects.filter(
        project=project, until__gt=timezone.now() - KEPT_FOR_SESSIONS
    )
    target = roll_back_target(project)
    keep = {
        *lately.values_list("model_id", flat=True),
        *preparing.values_list("model_id", flat=True),
        *([target.digest] if target else []),
        active_digest(project) or "",
    }
    for key in encoding.forget_models(project, keep=keep):
        storage.delete(key)
