"""How a model comes to be known: the worker makes or reads it, and then there is a row.

An uploaded file is read by the worker alone: what strangers hand in is never opened in the server.
Safe to run again after being killed anywhere. The worker takes the file away once it has read it,
so an attempt that comes after that is refused by name, and the file is uploaded again.
"""

from __future__ import annotations

import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from delineate import jobs, live, storage, worker
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import DelineateError, Invalid, NotFound, Unavailable
from delineate.projects.models import Project
from delineate.registry.models import Deployment, ModelUpload, ModelVersion
from delineate.registry.selectors import active_digest, default_model
from mlworker.contract.messages import (
    AddCheckpoint,
    CheckpointAdded,
    Failed,
    FromPackage,
    FromSeed,
    FromUpload,
    Reply,
)

logger = logging.getLogger(__name__)

# Making ViT-B's weights takes seconds; the worker may have to start first, and load torch.
MAKING_TAKES_AT_MOST_S: Final = 120.0
# ViT-H takes a minute; the worker, which does one thing at a time, may have to end another first.
READING_TAKES_AT_MOST_S: Final = 600.0
SIGN_OF_LIFE_EVERY_S: Final = 5.0


def add_uploaded(upload_id: uuid.UUID) -> None:
    """Run an upload's job; returns quietly when it is gone, ended, or alive in other hands."""
    upload = jobs.claim(ModelUpload, upload_id)
    if upload is None:
        _clear_up(upload_id)
        return
    try:
        added = _read_by_the_worker(upload)
        with transaction.atomic():
            upload.model = register(added, name=upload.name, by=upload.by)
            upload.save(update_fields=["model"])
            jobs.finish(upload)
    except jobs.TakenOver:
        logger.info("Model upload %s was taken over by another attempt", upload_id)
    except DelineateError as refusal:
        logger.info("Model upload %s was refused: %s", upload_id, refusal.code)
        _refuse(upload, refusal)


def make(source: FromSeed | FromPackage) -> CheckpointAdded:
    """Let the worker bring a model of its own into the store.

    Waits for it; raises NotFound ``checkpoint_missing`` where it has none, Unavailable.
    """
    reply = worker.call_blocking(AddCheckpoint, timeout_s=MAKING_TAKES_AT_MOST_S, source=source)
    if isinstance(reply, Failed) and reply.code == "checkpoint_missing":
        raise NotFound(reply.message, code=reply.code)
    if isinstance(reply, Failed):
        raise Unavailable(f"The worker could not make the model: {reply.message}", code=reply.code)
    assert isinstance(reply, CheckpointAdded), reply
    return reply


def register(added: CheckpointAdded, *, name: str, by: User | None = None) -> ModelVersion:
    """Know a checkpoint that lies in the store; the first model becomes the default at once."""
    with transaction.atomic():
        lock_models()
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
            preparation=added.preparation,
            origin=added.origin,
            parent=added.parent or "",
            metrics=added.metrics,
        )
        audit.model_added(
            model.digest,
            by=by,
            name=name,
            variant=model.variant,
            trained=model.trained,
            origin=model.origin,
        )
        if default_model() is None:
            let_answer(model, by=by)
    return model


def let_answer(model: ModelVersion, *, by: User | None) -> None:
    """Make a model the default; in a transaction that holds ``lock_models``."""
    previous = default_model()
    if previous is not None:
        previous.is_default = False
        previous.save(update_fields=["is_default"])
    model.is_default = True
    model.save(update_fields=["is_default"])
    audit.model_made_default(model.digest, by=by, previous=previous.digest if previous else None)
    for project_id in Project.objects.values_list("id", flat=True):
        live.tell(project_id, "model", id=model.digest)


def deploy(model: ModelVersion, project: Project, *, by: User | None, change: str) -> None:
    """Let a model answer in one project; in a transaction that holds the project."""
    now = timezone.now()
    previous = active_digest(project)
    Deployment.objects.filter(project=project, until=None).update(until=now)
    Deployment.objects.create(project=project, model=model, since=now, by=by)
    audit.model_answers(project.id, model.digest, by=by, change=change, previous=previous)
    live.tell(project.id, "model", id=model.digest)


def lock_models() -> None:
    """One writer at a time, until the transaction ends: there is one default, or none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('models', 0))")


def _read_by_the_worker(upload: ModelUpload) -> CheckpointAdded:
    """The worker's word for the file; raises Invalid with the worker's reason, or Unavailable."""
    reply = _waiting_alive(upload)
    if isinstance(reply, Failed):
        raise Invalid(reply.message, code=reply.code)
    assert isinstance(reply, CheckpointAdded), reply
    return reply


def _waiting_alive(upload: ModelUpload) -> Reply:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="model") as thread:
        reply = thread.submit(
            worker.call_blocking,
            AddCheckpoint,
            timeout_s=READING_TAKES_AT_MOST_S,
            source=FromUpload.model_validate(
                {"upload_id": str(upload.id), "adapters": upload.adapters or None}
            ),
        )
        while True:
            try:
                return reply.result(timeout=SIGN_OF_LIFE_EVERY_S)
            except TimeoutError:
                jobs.sign_of_life(upload)


def _refuse(upload: ModelUpload, refusal: DelineateError) -> None:
    sentence = refusal.sentence
    if refusal.code == "worker_timeout":
        sentence = (
            f"The worker did not read the file within {READING_TAKES_AT_MOST_S / 60:.0f} minutes: "
            "it may be busy, away, or short of memory. Try again later."
        )
    with transaction.atomic():
        jobs.fail(upload, code=refusal.code, message=sentence)
        audit.model_refused(upload.id, by=upload.by, name=upload.name, code=refusal.code)
    storage.delete(upload.file_key)


def _clear_up(upload_id: uuid.UUID) -> None:
    """A job that was given up leaves its file behind."""
    given_up = ModelUpload.objects.filter(id=upload_id, error_code="gave_up").first()
    if given_up is not None:
        storage.delete(given_up.file_key)
