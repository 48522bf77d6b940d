"""Which model answers."""

from __future__ import annotations

from django.db.models import QuerySet

from delineate.errors import Conflict
from delineate.projects.models import Project
from delineate.registry.models import ModelUpload, ModelVersion


def active_model(project: Project) -> ModelVersion:
    """The model that answers prompts in ``project``; Conflict ``no_model`` where there is none.

    All projects share the default model.
    """
    model = ModelVersion.objects.filter(is_default=True).first()
    if model is None:
        raise Conflict(
            "There is no model yet: an administrator adds one.",
            code="no_model",
        )
    return model


def active_digest(project: Project) -> str | None:
    """The digest of the model that answers in ``project``, None where there is none."""
    model = ModelVersion.objects.filter(is_default=True).first()
    return None if model is None else model.digest


def all_models() -> QuerySet[ModelVersion]:
    """Every model, the newest first."""
    return ModelVersion.objects.all()


def model_uploads() -> QuerySet[ModelUpload]:
    """What has been uploaded to be a model, the newest first."""
    return ModelUpload.objects.select_related("model")
