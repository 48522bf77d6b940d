"""The models: which one answers in a project, and what administrators do with them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import File, Form, Router, Schema, Status
from ninja.files import UploadedFile
from pydantic import ConfigDict, Field

from delineate.accounts.api import NO_NUL
from delineate.accounts.permissions import user_of
from delineate.jobs import JobState
from delineate.projects.selectors import project_for
from delineate.registry import selectors, services
from delineate.registry.models import ModelUpload, ModelVersion
from delineate.registry.permissions import require_administrator
from mlworker.contract.messages import AdapterChoice

router = Router(tags=["models"])

UPLOADS_LISTED_AT_MOST = 20


class ModelRef(Schema):
    """A model by name."""

    digest: str
    name: str


class ModelOut(Schema):
    """A model; ``trained`` false means random weights, good for trying the page only."""

    digest: str
    name: str
    variant: str
    trained: bool


class ModelDetails(ModelOut):
    """A model and what its checkpoint says of itself."""

    image_size: int
    adapters: bool
    preparation: int
    origin: str
    parent: str
    metrics: dict[str, float]
    is_default: bool
    created_at: datetime


class ModelUploadOut(Schema):
    """A file on its way to being a model; ``was_known``: it is one that was there before."""

    id: UUID
    name: str
    size_bytes: int
    state: JobState
    model_id: str | None
    was_known: bool
    created_at: datetime
    finished_at: datetime | None
    error_code: str
    error_message: str


class DefaultModel(Schema):
    """Which model is to answer."""

    model_config = ConfigDict(extra="forbid")

    digest: str = Field(max_length=64, pattern=NO_NUL)


class NewModel(Schema):
    """What an uploaded model is to be called (as its file without a name), and its adapters.

    ``adapters``: ``fresh`` ones, which change nothing until they are trained, those of the file
    (``keep``), or none (``drop``). Without it those of the file; fresh ones for an original SAM.
    """

    name: str = Field(default="", max_length=services.NAME_AT_MOST, pattern=NO_NUL)
    adapters: AdapterChoice | None = None


@router.get("/projects/{project_id}/model", response=ModelOut)
def get_model(request: HttpRequest, project_id: UUID) -> ModelVersion:
    """The model that answers prompts in the project; 409 no_model."""
    return selectors.active_model(project_for(user_of(request), project_id))


@router.get("/models", response=list[ModelDetails])
def list_models(request: HttpRequest) -> list[ModelVersion]:
    """Every model, the newest first; for administrators."""
    require_administrator(user_of(request))
    return list(selectors.all_models())


@router.post("/models", response={201: ModelUploadOut})
def post_model(
    request: HttpRequest, file: File[UploadedFile], new: Form[NewModel]
) -> Status[ModelUpload]:
    """Upload a checkpoint; the worker reads it afterwards, see the upload. For administrators."""
    upload = services.receive_checkpoint(
        file, name=new.name, adapters=new.adapters, by=user_of(request)
    )
    return Status(201, upload)


@router.get("/models/uploads", response=list[ModelUploadOut])
def list_model_uploads(request: HttpRequest) -> list[ModelUpload]:
    """The last uploads of checkpoints and what became of them; for administrators."""
    require_administrator(user_of(request))
    return list(selectors.model_uploads()[:UPLOADS_LISTED_AT_MOST])


@router.put("/models/default", response=ModelDetails)
def put_default_model(request: HttpRequest, chosen: DefaultModel) -> ModelVersion:
    """Let a model answer prompts in every project from now on; for administrators."""
    return services.make_default(chosen.digest, by=user_of(request))
