"""Which model answers."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from delineate.errors import Conflict
from delineate.projects.models import Project
from delineate.registry.models import Deployment, ModelUpload, ModelVersion


def default_model() -> ModelVersion | None:
    """The installation's model, which answers where a project has none of its own."""
    return ModelVersion.objects.filter(is_default=True).first()


def active_model(project: Project) -> ModelVersion:
    """The model that answers prompts in ``project``; Conflict ``no_model`` where there is none.

    Its own, where one is deployed; else the default model.
    """
    own = Deployment.objects.filter(project=project, until=None).select_related("model").first()
    model = own.model if own else default_model()
    if model is None:
        raise Conflict(
            "There is no model yet: an administrator adds one.",
            code="no_model",
        )
    return model


def active_digest(project: Project) -> str | None:
    """The digest of the model that answers in ``project``, None where there is none."""
    try:
        return active_model(project).digest
    except Conflict:
        return None


def active_digests() -> dict[UUID, str]:
    """The digest of the model that answers in each project that has one."""
    default = default_model()
    answering = (
        {}
        if default is None
        else dict.fromkeys(Project.objects.values_list("id", flat=True), default.digest)
    )
    own = Deployment.objects.filter(until=None)
    return answering | dict(own.values_list("project_id", "model_id"))


def all_models() -> QuerySet[ModelVersion]:
    """Every model, the newest first."""
    return ModelVersion.objects.all()


def model_uploads() -> QuerySet[ModelUpload]:
    """What has been uploaded to be a model, the newest first."""
    return ModelUpload.objects.select_related("model")
