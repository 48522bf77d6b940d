"""The only writers of models: adding them, and saying which one answers."""

from __future__ import annotations

from typing import Final

from django.db import connection, transaction

from delineate import live, worker
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import NotFound, Unavailable
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion
from mlworker.contract.messages import (
    AddCheckpoint,
    CheckpointAdded,
    Failed,
    FromPackage,
    FromSeed,
    Reply,
    Variant,
)

# Making ViT-B's weights takes seconds; the worker may have to start first, and load torch.
ADDING_TAKES_AT_MOST_S: Final = 120.0


def add_shipped(*, by: User | None = None) -> ModelVersion | None:
    """The trained model that comes with the worker; None when none does.

    Waits for the worker, up to ADDING_TAKES_AT_MOST_S; raises Unavailable.
    """
    reply = _added(FromPackage())
    if isinstance(reply, Failed) and reply.code == "checkpoint_missing":
        return None
    return _known(reply, name="Delineate's default model", by=by)


def add_untrained(*, variant: Variant, seed: int, by: User | None = None) -> ModelVersion:
    """A model of random weights, for trying; equal seeds give equal models.

    Waits and raises as ``add_shipped``.
    """
    reply = _added(FromSeed(variant=variant, seed=seed))
    return _known(reply, name=f"Untrained {variant}, seed {seed}", by=by)


def _added(source: FromSeed | FromPackage) -> Reply:
    return worker.call_blocking(AddCheckpoint, timeout_s=ADDING_TAKES_AT_MOST_S, source=source)


def _known(reply: Reply, *, name: str, by: User | None) -> ModelVersion:
    if isinstance(reply, Failed):
        raise Unavailable(f"The worker could not make the model: {reply.message}", code=reply.code)
    assert isinstance(reply, CheckpointAdded), reply
    return register(reply, name=name, by=by)


def register(added: CheckpointAdded, *, name: str, by: User | None = None) -> ModelVersion:
    """Know a checkpoint that lies in the store; the first model becomes the default at once."""
    with transaction.atomic():
        _lock()
        known = ModelVersion.objects.filter(digest=added.digest).first()
        if known is not None:
            return known
        model = ModelVersion.objects.create(
            digest=added.digest,
            name=name,
            variant=added.variant,
            image_size=added.image_size,
            adapters=added.adapters,
            trained=added.trained,
        )
        audit.model_added(
            model.digest, by=by, name=name, variant=model.variant, trained=model.trained
        )
        if not ModelVersion.objects.filter(is_default=True).exists():
            _make_default(model, by=by)
    return model


def make_default(digest: str, *, by: User | None = None) -> ModelVersion:
    """Let a model answer prompts in every project from now on; NotFound ``unknown_model``."""
    with transaction.atomic():
        _lock()
        model = ModelVersion.objects.filter(digest=digest).first()
        if model is None:
            raise NotFound(f"There is no model {digest}.", code="unknown_model")
        if not model.is_default:
            _make_default(model, by=by)
    return model


def _make_default(model: ModelVersion, *, by: User | None) -> None:
    previous = ModelVersion.objects.filter(is_default=True).first()
    if previous is not None:
        previous.is_default = False
        previous.save(update_fields=["is_default"])
    model.is_default = True
    model.save(update_fields=["is_default"])
    audit.model_made_default(model.digest, by=by, previous=previous.digest if previous else None)
    for project_id in Project.objects.values_list("id", flat=True):
        live.tell(project_id, "model", id=model.digest)


def _lock() -> None:
    """One writer at a time, until the transaction ends: there is one default, or none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('models', 0))")
