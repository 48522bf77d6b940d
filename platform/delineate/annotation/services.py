"""The only writers of drafts, masks and tasks' states."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from delineate import live
from delineate.accounts.models import User
from delineate.annotation import drafts, jobs, seal
from delineate.annotation.drafts import DraftAction, DraftChanges, DraftState
from delineate.annotation.models import Draft, MaskRevision, Operation, Review, Task
from delineate.annotation.selectors import (
    newest_revisions,
    project_of,
    slice_and_label,
    unaccepted_drafts,
)
from delineate.annotation.transitions import Move, State, require_editable, state_after
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid, NotFound
from delineate.projects.models import Label
from delineate.projects.permissions import Action, require
from delineate.studies.joining import begin_work
from delineate.studies.models import Series, Slice
from delineate.studies.selectors import refuse_held
from mlworker.contract import masks
from mlworker.contract.masks import RunLengths

LONGEST_ACTIVE_SECONDS = 24 * 3600.0


class StaleBase(Conflict):
    """The draft has moved on; ``current`` and ``version`` say to what."""

    code = "stale_base"

    def __init__(self, draft: Draft) -> None:
        self.current = DraftState.model_validate(draft.state)
        self.version = draft.version
        super().__init__(
            "The draft has been changed elsewhere in the meantime; it is shown as it stands now.",
            version=draft.version,
        )


@dataclass(frozen=True)
class ClientSequence:
    """A client's own number of an operation, by which a repeat is recognised."""

    client_id: UUID
    sequence: int


def apply_operation(
    task: Task,
    *,
    slice_id: UUID,
    label_id: UUID,
    numbered: ClientSequence,
    base: int,
    action: DraftAction,
    changes: DraftChanges,
    by: User,
) -> int:
    """Change a draft durably; its version afterwards. A repeat is recognised and changes nothing.

    Raises Conflict ``task_closed`` or StaleBase, Invalid ``seal_broken`` or ``invalid_operation``,
    NotFound ``slice_gone`` or ``label_gone``.
    """
    require(by, Action.ANNOTATE, project_of(task))
    with transaction.atomic():
        task = _lock(task)
        # Not before the lock: the first may be under way still, on a socket that broke.
        repeated = Operation.objects.filter(
            client_id=numbered.client_id, sequence=numbered.sequence
        ).first()
        if repeated is not None:
            return _version_of_repeat(repeated, slice_id=slice_id, label_id=label_id, by=by)
        require_editable(State(task.state))
        slice_, label = slice_and_label(task, slice_id=slice_id, label_id=label_id)
        draft = _lock_draft(task, slice_=slice_, label=label)
        if base != draft.version:
            raise StaleBase(draft)
        state = drafts.apply(DraftState.model_validate(draft.state), changes)
        _check(state, changes, task=task, slice_id=slice_id, label_id=label_id)
        draft.state = state.model_dump(mode="json")
        draft.version += 1
        draft.updated_at = timezone.now()
        draft.save(update_fields=["state", "version", "updated_at"])
        Operation.objects.create(
            draft=draft,
            version=draft.version,
            client_id=numbered.client_id,
            sequence=numbered.sequence,
            action=action,
            changes=changes.model_dump(mode="json", exclude_unset=True),
            by=by,
        )
        if task.state == State.OPEN:
            _move(task, Move.BEGIN)
    return draft.version


def accept_draft(
    task: Task,
    *,
    slice_id: UUID,
    label_id: UUID,
    version: int,
    active_seconds: float,
    by: User,
) -> MaskRevision:
    """Freeze a draft as the next mask revision of its slice and label.

    A draft without operations freezes as "the label is not here". ``version`` is the one the
    annotator sees. Accepting the same version again gives the revision there is. Raises StaleBase,
    Conflict ``task_closed``.
    """
    require(by, Action.ANNOTATE, project_of(task))
    with transaction.atomic():
        task = _lock(task)
        require_editable(State(task.state))
        slice_, label = slice_and_label(task, slice_id=slice_id, label_id=label_id)
        draft = _lock_draft(task, slice_=slice_, label=label)
        if version != draft.version:
            raise StaleBase(draft)
        last = MaskRevision.objects.filter(slice=slice_, label=label).order_by("-number").first()
        if last is not None and last.draft_version == version:
            return last
        revision = _freeze(
            draft, task=task, number=last.number + 1 if last else 1, seconds=active_seconds, by=by
        )
        draft.accepted_version = draft.version
        draft.save(update_fields=["accepted_version"])
        if task.state == State.OPEN:
            _move(task, Move.BEGIN)
        project_id = project_of(task).id
        audit.mask_accepted(
            project_id,
            revision.id,
            by=by,
            task=str(task.id),
            slice=slice_.index,
            label=label.name,
            number=revision.number,
            model=revision.model_digest,
        )
        live.tell(project_id, "revisions", id=task.id)
    return revision


def submit(task: Task, *, by: User) -> Task:
    """Hand a task to its reviewer.

    Raises Conflict ``nothing_accepted``, or ``unaccepted_changes`` naming the slices (1 is the
    first).
    """
    require(by, Action.ANNOTATE, project_of(task))
    with transaction.atomic():
        task = _lock(task)
        state_after(State(task.state), Move.SUBMIT)
        if not newest_revisions(task).exists():
            raise Conflict("Accept at least one mask before submitting.", code="nothing_accepted")
        pending = [draft for draft in unaccepted_drafts(task) if _differs_from_accepted(draft)]
        if pending:
            where = ", ".join(f"slice {d.slice.index + 1} ({d.label.name})" for d in pending[:10])
            raise Conflict(
                f"Accept or clear these changes first: {where}.",
                code="unaccepted_changes",
                slices=sorted({draft.slice.index + 1 for draft in pending}),
            )
        task.submitted_by = by
        task.save(update_fields=["submitted_by"])
        _move(task, Move.SUBMIT)
        audit.task_submitted(project_of(task).id, task.id, by=by)
    return task


def accept(task: Task, *, comment: str = "", by: User) -> Task:
    """A reviewer accepts a submitted task."""
    require(by, Action.REVIEW, project_of(task))
    with transaction.atomic():
        task = _lock(task)
        _move(task, Move.ACCEPT)
        Review.objects.create(
            task=task, decision=Review.Decision.ACCEPTED, comment=comment.strip(), reviewer=by
        )
        audit.task_accepted(project_of(task).id, task.id, by=by, comment=comment.strip())
    return task


def return_(task: Task, *, comment: str, by: User) -> Task:
    """A reviewer sends a task back, saying why; Invalid ``comment_missing``."""
    require(by, Action.REVIEW, project_of(task))
    if not comment.strip():
        raise Invalid("Say what is to be corrected.", code="comment_missing")
    with transaction.atomic():
        task = _lock(task)
        _move(task, Move.RETURN)
        Review.objects.create(
            task=task, decision=Review.Decision.RETURNED, comment=comment.strip(), reviewer=by
        )
        audit.task_returned(project_of(task).id, task.id, by=by, comment=comment.strip())
    return task


def reopen(task: Task, *, by: User) -> Task:
    """Take an accepted task up again."""
    require(by, Action.REVIEW, project_of(task))
    with transaction.atomic():
        task = _lock(task)
        _move(task, Move.REOPEN)
        audit.task_reopened(project_of(task).id, task.id, by=by)
    return task


def open_task(series: Series, *, by: User) -> Task:
    """The task of a series, opened if beat has not done so yet."""
    require(by, Action.VIEW, series.study.project)
    with transaction.atomic():
        return jobs.open_for(series)[0]


def _lock(task: Task) -> Task:
    locked = (
        Task.objects.select_for_update(of=("self",), no_key=True)
        .select_related("series__study__project", "series__study__subject", "submitted_by")
        .filter(pk=task.pk)
        .first()
    )
    if locked is None:
        raise NotFound("The task has been deleted with its study.")
    refuse_held(locked.series)
    return locked


def _lock_draft(task: Task, *, slice_: Slice, label: Label) -> Draft:
    # The task is locked, so nobody else makes this draft meanwhile.
    _, is_new = Draft.objects.get_or_create(
        slice=slice_,
        label=label,
        defaults={"task": task, "state": DraftState().model_dump(mode="json")},
    )
    if is_new:
        begin_work(task.series_id)
    return Draft.objects.select_for_update(no_key=True).get(slice=slice_, label=label)


def _move(task: Task, move: Move) -> None:
    task.state = state_after(State(task.state), move)
    task.state_changed_at = timezone.now()
    task.save(update_fields=["state", "state_changed_at"])
    live.tell(project_of(task).id, "task", id=task.id, state=str(task.state))


def _version_of_repeat(operation: Operation, *, slice_id: UUID, label_id: UUID, by: User) -> int:
    draft = operation.draft
    if (draft.slice_id, draft.label_id, operation.by_id) != (slice_id, label_id, by.pk):
        raise Conflict("Another operation has this client's number already.", code="sequence_taken")
    return operation.version


def _check(
    state: DraftState, changes: DraftChanges, *, task: Task, slice_id: UUID, label_id: UUID
) -> None:
    size = (task.series.rows, task.series.columns)
    proposal = changes.proposal
    for runs in (changes.drawn, changes.erased, proposal.mask if proposal else None):
        if runs is not None and (runs.height, runs.width) != size:
            raise Invalid("A mask is not of the slice's size.", code="invalid_operation")
    if proposal is not None:
        seal.check(proposal, slice_id=slice_id, label_id=label_id)
    if state.drawn is not None and state.erased is not None:
        overlap = masks.decode(state.drawn) & masks.decode(state.erased)
        if overlap.any():
            raise Invalid("A pixel is both drawn and erased.", code="invalid_operation")


def _freeze(draft: Draft, *, task: Task, number: int, seconds: float, by: User) -> MaskRevision:
    state = DraftState.model_validate(draft.state)
    height, width = task.series.rows, task.series.columns
    mask = masks.encode(drafts.visible_mask(state, height=height, width=width))
    first = _first_proposal(draft)
    return MaskRevision.objects.create(
        task=task,
        slice_id=draft.slice_id,
        label_id=draft.label_id,
        number=number,
        mask=mask.model_dump(mode="json"),
        by=by,
        prompts=state.prompts.model_dump(mode="json"),
        model_digest=state.proposal.model_digest if state.proposal else "",
        first_proposal=first.model_dump(mode="json") if first else None,
        hand_drawn_share=drafts.hand_drawn_share(state, height=height, width=width),
        active_seconds=min(max(seconds, 0.0), LONGEST_ACTIVE_SECONDS),
        draft_version=draft.version,
    )


def _first_proposal(draft: Draft) -> RunLengths | None:
    """The model's first mask since the draft was last accepted."""
    operations = draft.operations.filter(
        version__gt=draft.accepted_version, action=DraftAction.PROMPT
    )
    for operation in operations:
        changes = DraftChanges.model_validate(operation.changes)
        if changes.proposal is not None:
            return changes.proposal.mask
    return None


def _differs_from_accepted(draft: Draft) -> bool:
    """Whether what is on screen is not what was accepted last (nothing counts as an empty mask)."""
    state = DraftState.model_validate(draft.state)
    size = draft.task.series.rows, draft.task.series.columns
    visible = masks.encode(drafts.visible_mask(state, height=size[0], width=size[1]))
    last = draft.slice.revisions.filter(label=draft.label).order_by("-number").first()
    accepted = RunLengths.model_validate(last.mask) if last else masks.empty(*size)
    return visible.counts != accepted.counts
