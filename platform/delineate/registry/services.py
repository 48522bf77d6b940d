"""Acts on models: adding them, and saying which one answers."""

from __future__ import annotations

import logging
import uuid
from functools import partial
from pathlib import PurePath
from typing import Final

from django.core.files import File
from django.db import transaction
from kombu.exceptions import OperationalError

from delineate import storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Invalid, NotFound
from delineate.registry import jobs
from delineate.registry.models import ModelUpload, ModelVersion
from delineate.registry.permissions import require_administrator
from delineate.registry.tasks import add_model_task
from mlworker.contract.messages import AdapterChoice, FromPackage, FromSeed, Variant

logger = logging.getLogger(__name__)

# The largest known, SAM's ViT-H and SAM-Med2D with its optimizer, are 2.4 GiB.
MAX_CHECKPOINT_BYTES: Final = 3 * 1024**3
CHUNK_BYTES: Final = 1024 * 1024
NAME_AT_MOST: Final = 120


class CheckpointTooLarge(Invalid):
    """More bytes than any checkpoint has that can be used here."""

    status = 413
    code = "too_large"


def receive_checkpoint(
    file: File[bytes],
    *,
    name: str = "",
    adapters: AdapterChoice | None = None,
    by: User | None = None,
) -> ModelUpload:
    """Keep a file durably and owe the model that it becomes; it is called as the file without
    ``name``, and ``adapters`` are as in `mlworker convert`.

    Raises NotAllowed, Invalid ``no_file``, CheckpointTooLarge. What is in the file is judged later,
    see the upload's state.
    """
    require_administrator(by)
    _refuse_by_size(file.size)
    called = name.strip() or PurePath(file.name or "").stem or "Model"
    upload = ModelUpload(
        by=by, name=called[:NAME_AT_MOST], size_bytes=file.size, adapters=adapters or ""
    )
    try:
        # Before the row: what is acknowledged must be there.
        storage.put_chunks(upload.file_key, iter(file.chunks(CHUNK_BYTES)))
        with transaction.atomic():
            upload.save(force_insert=True)
            audit.model_uploaded(upload.id, by=by, name=upload.name, bytes=upload.size_bytes)
            transaction.on_commit(partial(_hurry, upload.id))
    except BaseException:
        storage.delete(upload.file_key)
        raise
    return upload


def add_shipped(*, by: User | None = None) -> ModelVersion | None:
    """The trained model that comes with the worker; None when none does.

    Waits for the worker; raises Unavailable.
    """
    try:
        added = jobs.make(FromPackage())
    except NotFound:
        return None
    return jobs.register(added, name="Delineate's default model", by=by)


def add_untrained(*, variant: Variant, seed: int, by: User | None = None) -> ModelVersion:
    """A model of random weights, for trying; equal seeds give equal models.

    Waits and raises as ``add_shipped``.
    """
    added = jobs.make(FromSeed(variant=variant, seed=seed))
    return jobs.register(added, name=f"Untrained {variant}, seed {seed}", by=by)


def make_default(digest: str, *, by: User | None = None) -> ModelVersion:
    """Let a model answer prompts in every project from now on.

    Raises NotAllowed, NotFound ``unknown_model``.
    """
    require_administrator(by)
    with transaction.atomic():
        jobs.lock_models()
        model = ModelVersion.objects.filter(digest=digest).first()
        if model is None:
            raise NotFound(f"There is no model {digest}.", code="unknown_model")
        if not model.is_default:
            jobs.let_answer(model, by=by)
    return model


def _refuse_by_size(size_bytes: int) -> None:
    if size_bytes == 0:
        raise Invalid("The file is empty.", code="no_file")
    if size_bytes > MAX_CHECKPOINT_BYTES:
        raise CheckpointTooLarge(
            f"The file is larger than {MAX_CHECKPOINT_BYTES // 1024**2} MiB; checkpoints are not.",
            limit_bytes=MAX_CHECKPOINT_BYTES,
        )


def _hurry(upload_id: uuid.UUID) -> None:
    try:
        add_model_task.delay(str(upload_id))
    except (OperationalError, OSError) as error:
        logger.warning("Model upload %s waits for the sweep: %s", upload_id, error)
