"""Which model answers in a project."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema

from delineate.accounts.models import User
from delineate.projects.selectors import project_for
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import active_model

router = Router(tags=["models"])


class ModelOut(Schema):
    """A model; ``trained`` false means random weights, good for trying the page only."""

    digest: str
    name: str
    variant: str
    trained: bool


@router.get("/projects/{project_id}/model", response=ModelOut)
def get_model(request: HttpRequest, project_id: UUID) -> ModelVersion:
    """The model that answers prompts in the project; 409 no_model."""
    assert isinstance(request.user, User)
    return active_model(project_for(request.user, project_id))
