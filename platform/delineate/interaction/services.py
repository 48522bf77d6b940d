"""What a workspace's session does: open, segment, change a draft, prepare slices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from channels.db import database_sync_to_async
from django.conf import settings

from delineate import worker
from delineate.accounts.models import User
from delineate.annotation import seal
from delineate.annotation import services as annotation
from delineate.annotation.drafts import SealedProposal
from delineate.annotation.models import Task
from delineate.annotation.selectors import project_of, slice_and_label, task_for
from delineate.annotation.services import ClientSequence
from delineate.annotation.transitions import EDITABLE, State, require_editable
from delineate.errors import Conflict, DelineateError, Invalid, NotFound, Unavailable
from delineate.interaction.protocol import (
    Operation,
    Preparing,
    Prompt,
    Proposal,
    Saved,
)
from delineate.jobs import JobState
from delineate.projects.permissions import Action, actions_of, require, roles_with
from delineate.registry.selectors import active_digest
from delineate.studies import encoding
from delineate.studies.models import Encoding, Slice
from delineate.studies.selectors import image_of, not_held, refuse_held
from mlworker.contract import broker
from mlworker.contract.messages import (
    Failed,
    NotPrepared,
    Segmented,
    SegmentSlice,
    SliceImage,
)

NEIGHBOURS: Final = 4  # on either side of a slice that is being prepared


@dataclass
class Session:
    """One open workspace: whose it is, on which task, with which model."""

    user_id: int
    task_id: UUID
    project_id: UUID
    study_id: UUID
    series_id: UUID
    model_digest: str
    may_annotate: bool
    # A slice's pixels, size and window never change; what may change is asked for each prompt.
    images: dict[UUID, SliceImage] = field(default_factory=dict)


def open_session(user: User, task_id: UUID) -> Session:
    """A session on a task; NotFound, InQuarantine, or Conflict ``no_model``."""
    task = task_for(user, task_id)
    refuse_held(task.series)
    project = project_of(task)
    digest = active_digest(project)
    if digest is None:
        raise Conflict("There is no model yet that could answer.", code="no_model")
    return Session(
        user_id=user.pk,
        task_id=task.id,
        project_id=project.id,
        study_id=task.series.study_id,
        series_id=task.series_id,
        model_digest=digest,
        may_annotate=Action.ANNOTATE in actions_of(require(user, Action.VIEW, project)),
    )


async def segment(session: Session, prompt: Prompt) -> Proposal | Preparing:
    """Ask the model; a slice without an embedding is put first in line to get one.

    Raises what the worker's door and the checks raise. Whether the person may still do this is
    asked while the model works, and counts before its answer is given.
    """
    started = time.perf_counter()
    image = session.images.get(prompt.slice_id)
    if image is None:
        image = await database_sync_to_async(_image)(session, prompt)
        session.images[prompt.slice_id] = image
    checked = asyncio.ensure_future(database_sync_to_async(_require_allowed)(session, prompt))
    try:
        reply = await worker.call(
            SegmentSlice,
            timeout_s=settings.ENVIRONMENT.click_timeout_s,
            model_digest=session.model_digest,
            image=image,
            points=prompt.prompts.points,
            box=prompt.prompts.box,
            refine=prompt.refine,
        )
    except DelineateError:
        await checked  # a slice that is gone is the better reason
        raise
    await checked
    match reply:
        case Segmented():
            return _proposal(prompt, reply, started=started)
        case NotPrepared():
            await database_sync_to_async(_prepare_around)(session, prompt.slice_id)
            return Preparing(request_id=prompt.request_id, slice_id=prompt.slice_id)
        case Failed(code="worker_failed"):
            raise Unavailable(reply.message, code=reply.code)
        case Failed():
            raise Invalid(reply.message, code=reply.code)
        case _:
            raise Unavailable("The worker answered something else.", code="worker_failed")


def change_draft(session: Session, operation: Operation) -> Saved:
    """Apply an operation durably; raises what annotation.services.apply_operation raises."""
    user = User.objects.get(pk=session.user_id)
    version = annotation.apply_operation(
        task_for(user, session.task_id),
        slice_id=operation.slice_id,
        label_id=operation.label_id,
        numbered=ClientSequence(operation.client_id, operation.sequence),
        base=operation.base,
        action=operation.action,
        changes=operation.changes,
        by=user,
    )
    return Saved(
        client_id=operation.client_id,
        sequence=operation.sequence,
        slice_id=operation.slice_id,
        label_id=operation.label_id,
        version=version,
    )


def prepare(session: Session, slice_ids: Sequence[UUID]) -> None:
    """Encode these slices of the series soon, the first of them first of all."""
    own = set(
        Slice.objects.filter(id__in=slice_ids, series_id=session.series_id).values_list(
            "id", flat=True
        )
    )
    ordered = [slice_id for slice_id in slice_ids if slice_id in own]
    digest = session.model_digest
    if ordered:
        encoding.request(ordered[:1], model_digest=digest, priority=broker.PRIORITY_NOW)
    if ordered[1:]:
        encoding.request(ordered[1:], model_digest=digest, priority=broker.PRIORITY_SOON)


def encoding_failure(session: Session, slice_id: UUID) -> Conflict | None:
    """Why a slice got no embedding; None when it has one, or may get one yet."""
    failed = Encoding.objects.filter(
        slice_id=slice_id, model_digest=session.model_digest, state=JobState.FAILED
    ).first()
    if failed is None:
        return None
    return Conflict(
        f"This slice cannot be prepared: {failed.error_message}", code="encoding_failed"
    )


def _image(session: Session, prompt: Prompt) -> SliceImage:
    _require_allowed(session, prompt)
    return image_of(Slice.objects.select_related("series").get(pk=prompt.slice_id))


def _require_allowed(session: Session, prompt: Prompt) -> None:
    """Whether this person may delineate this label on this slice, here and now.

    One query, because it shares two cores with the model; only a refusal looks for its reason.
    """
    project = "series__study__project"
    allowed = Slice.objects.filter(
        not_held("series__"),
        **{
            "pk": prompt.slice_id,
            "series": session.series_id,
            "series__task": session.task_id,
            "series__task__state__in": EDITABLE,
            f"{project}__labels": prompt.label_id,
            f"{project}__memberships__user": session.user_id,
            f"{project}__memberships__user__is_active": True,
            f"{project}__memberships__role__in": roles_with(Action.ANNOTATE),
        },
    )
    if not allowed.exists():
        _refuse_with_reason(session, prompt)


def _refuse_with_reason(session: Session, prompt: Prompt) -> None:
    user = User.objects.filter(pk=session.user_id, is_active=True).first()
    if user is None:
        raise NotFound("The account has been closed.")
    task = Task.objects.select_related("series__study__project").filter(pk=session.task_id).first()
    if task is None:
        raise NotFound("The slice has been deleted with its study.", code="slice_gone")
    require(user, Action.ANNOTATE, project_of(task))
    slice_and_label(task, slice_id=prompt.slice_id, label_id=prompt.label_id)
    refuse_held(task.series)
    require_editable(State(task.state))
    # It has become allowed in this very moment.


def _proposal(prompt: Prompt, reply: Segmented, *, started: float) -> Proposal:
    proposal = SealedProposal(
        proposal_id=reply.proposal_id,
        mask=reply.mask,
        predicted_iou=reply.predicted_iou,
        model_digest=reply.model_digest,
        prompts=prompt.prompts,
        seal="",
    )
    return Proposal(
        request_id=prompt.request_id,
        slice_id=prompt.slice_id,
        label_id=prompt.label_id,
        proposal=seal.seal(proposal, slice_id=prompt.slice_id, label_id=prompt.label_id),
        timing=reply.timing,
        server_ms=(time.perf_counter() - started) * 1e3,
    )


def _prepare_around(session: Session, slice_id: UUID) -> None:
    slice_ = Slice.objects.filter(pk=slice_id).first()
    if slice_ is None:
        raise NotFound("The slice has been deleted with its study.", code="slice_gone")
    digest = session.model_digest
    encoding.request([slice_id], model_digest=digest, priority=broker.PRIORITY_NOW, anew=True)
    failure = encoding_failure(session, slice_id)
    if failure is not None:
        raise failure
    neighbours = Slice.objects.filter(
        series_id=session.series_id,
        index__range=(slice_.index - NEIGHBOURS, slice_.index + NEIGHBOURS),
    ).exclude(pk=slice_id)
    encoding.request(
        list(neighbours.values_list("id", flat=True)),
        model_digest=digest,
        priority=broker.PRIORITY_SOON,
    )
