"""Tasks: what is to delineate, its drafts and masks, its review."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import ConfigDict, Field

from delineate.accounts.models import User
from delineate.accounts.permissions import user_of
from delineate.annotation import selectors, services, transitions
from delineate.annotation.drafts import DraftAction, DraftChanges, DraftState
from delineate.annotation.models import Draft, MaskRevision, Operation, Review, Task
from delineate.annotation.transitions import Move, State
from delineate.projects.api import LabelOut
from delineate.projects.permissions import Action, actions_of, require, role_in
from delineate.projects.selectors import project_for
from delineate.registry.api import ModelOut
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import active_digest
from delineate.studies.api import ErasureOut
from delineate.studies.models import Erasure, Series, Slice
from delineate.studies.selectors import (
    awaited_erasures,
    prepared_slices,
    series_for,
    subjects_of,
)
from mlworker.contract.masks import RunLengths

router = Router(tags=["tasks"])


class TaskCounts(Schema):
    """How many tasks stand where."""

    open: int
    in_progress: int
    submitted: int
    returned: int
    accepted: int


class Progress(Schema):
    """How a project stands."""

    studies: int
    slices: int
    prepared_slices: int
    tasks: TaskCounts
    accepted_masks: int


class SubjectOut(Schema):
    """A subject, the pseudonyms that were merged into it, and what is there of it.

    ``erasure``: it is on its way out.
    """

    id: int
    pseudonym: str
    aliases: list[str]
    studies: int
    series: int
    slices: int
    accepted_masks: int
    added_at: datetime | None  # of its first study; null without any
    erasure: ErasureOut | None


class TaskSummary(Schema):
    """A task in a list."""

    id: UUID
    state: State
    series_id: UUID
    study_id: UUID
    study_number: int
    subject: str
    modality: str
    slices: int
    prepared: int
    accepted_masks: int
    state_changed_at: datetime
    submitted_by: str | None
    last_comment: str | None


class SliceOut(Schema):
    """A slice of the series, in order; its frame is fetched over DICOMweb."""

    id: UUID
    index: int
    sop_instance_uid: str
    frame_number: int
    prepared: bool


class SeriesDetail(Schema):
    """The series to delineate."""

    id: UUID
    series_uid: str
    study_uid: str
    study_number: int
    subject: str
    modality: str
    rows: int
    columns: int
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    is_color: bool
    window_centre: float | None
    window_width: float | None
    slices: list[SliceOut]


class ReviewOut(Schema):
    """A reviewer's word."""

    decision: str
    comment: str
    reviewer: str
    at: datetime

    @staticmethod
    def resolve_reviewer(review: Review | ReviewOut) -> str:
        """The reviewer's name; asked again of what was made, once that is part of an answer."""
        return review.reviewer if isinstance(review, ReviewOut) else review.reviewer.username


class RevisionOut(Schema):
    """A mask that was accepted for a slice and label."""

    id: UUID
    slice_id: UUID
    label_id: UUID
    number: int
    mask: RunLengths
    by: str
    at: datetime
    model_digest: str
    hand_drawn_share: float

    @staticmethod
    def resolve_by(revision: MaskRevision | RevisionOut) -> str:
        """Who accepted it; asked again of what was made, when that becomes part of an answer."""
        return revision.by if isinstance(revision, RevisionOut) else revision.by.username


class DraftOut(Schema):
    """Work in progress on a slice and label."""

    slice_id: UUID
    label_id: UUID
    version: int
    accepted_version: int
    state: DraftState


class TaskDetail(Schema):
    """Everything the workspace starts from."""

    id: UUID
    project_id: UUID
    project_name: str
    state: State
    actions: list[Action]
    moves: list[Move]
    series: SeriesDetail
    labels: list[LabelOut]
    model: ModelOut | None
    reviews: list[ReviewOut]
    revisions: list[RevisionOut]
    drafts: list[DraftOut]


class OperationOut(Schema):
    """An entry of a draft's journal."""

    version: int
    action: DraftAction
    changes: DraftChanges


class AcceptIn(Schema):
    """Which draft to freeze, as the annotator sees it."""

    model_config = ConfigDict(extra="forbid")

    slice_id: UUID
    label_id: UUID
    version: int = Field(ge=0)
    active_seconds: float = Field(ge=0, allow_inf_nan=False)


class CommentIn(Schema):
    """A reviewer's comment."""

    model_config = ConfigDict(extra="forbid")

    comment: str = Field(default="", max_length=4000)


@router.get("/projects/{project_id}/progress", response=Progress)
def get_progress(request: HttpRequest, project_id: UUID) -> dict[str, object]:
    """How the project stands."""
    project = project_for(user_of(request), project_id)
    return selectors.progress_of(project, model_digest=active_digest(project))


@router.get("/projects/{project_id}/subjects", response=list[SubjectOut])
def list_subjects(request: HttpRequest, project_id: UUID) -> list[SubjectOut]:
    """The project's subjects."""
    user = user_of(request)
    project = project_for(user, project_id)
    require(user, Action.MANAGE_SUBJECTS, project)
    masks = selectors.masks_by_subject(project)
    erasures = awaited_erasures(project)
    return [
        SubjectOut(
            id=subject.id,
            pseudonym=subject.pseudonym,
            aliases=[alias.pseudonym for alias in subject.aliases.all()],
            studies=vars(subject)["study_count"],  # counted by the selector
            series=vars(subject)["series_count"],
            slices=vars(subject)["slice_count"],
            added_at=vars(subject)["added_at"],
            accepted_masks=masks.get(subject.id, 0),
            erasure=_erasure(erasures.get(subject.id)),
        )
        for subject in subjects_of(project)
    ]


@router.get("/projects/{project_id}/tasks", response=list[TaskSummary])
def list_tasks(request: HttpRequest, project_id: UUID) -> list[TaskSummary]:
    """The project's tasks in the order of their studies."""
    project = project_for(user_of(request), project_id)
    tasks = selectors.tasks_of(project, model_digest=active_digest(project))
    return [_summary(task) for task in tasks]


@router.post("/series/{series_id}/task", response=TaskSummary)
def post_series_task(request: HttpRequest, series_id: UUID) -> TaskSummary:
    """The series' task, opened if need be."""
    user = user_of(request)
    return _summary_of(services.open_task(series_for(user, series_id), by=user))


@router.get("/tasks/{task_id}", response=TaskDetail)
def get_task(request: HttpRequest, task_id: UUID) -> TaskDetail:
    """A task with its slices, labels, drafts and masks."""
    user = user_of(request)
    return _detail(selectors.task_for(user, task_id), user=user)


@router.get(
    "/tasks/{task_id}/drafts/{slice_id}/{label_id}/journal",
    response=list[OperationOut],
    exclude_unset=True,  # a field that an operation did not assign is not null
)
def get_journal(
    request: HttpRequest, task_id: UUID, slice_id: UUID, label_id: UUID
) -> list[Operation]:
    """What was done to a draft, in order: an undo list can be rebuilt from it."""
    task = selectors.task_for(user_of(request), task_id)
    return list(
        Operation.objects.filter(
            draft__task=task, draft__slice_id=slice_id, draft__label_id=label_id
        )
    )


@router.post("/tasks/{task_id}/revisions", response={201: RevisionOut})
def post_revision(request: HttpRequest, task_id: UUID, body: AcceptIn) -> Status[MaskRevision]:
    """Accept the mask on screen."""
    user = user_of(request)
    return Status(
        201,
        services.accept_draft(
            selectors.task_for(user, task_id),
            slice_id=body.slice_id,
            label_id=body.label_id,
            version=body.version,
            active_seconds=body.active_seconds,
            by=user,
        ),
    )


@router.get("/tasks/{task_id}/revisions/{slice_id}/{label_id}", response=list[RevisionOut])
def list_revisions(
    request: HttpRequest, task_id: UUID, slice_id: UUID, label_id: UUID
) -> list[MaskRevision]:
    """Every mask that was ever accepted for a slice and label."""
    task = selectors.task_for(user_of(request), task_id)
    revisions = task.revisions.filter(slice_id=slice_id, label_id=label_id)
    return list(revisions.select_related("by"))


@router.post("/tasks/{task_id}/submit", response=TaskSummary)
def post_submit(request: HttpRequest, task_id: UUID) -> TaskSummary:
    """Hand the task to its reviewer."""
    user = user_of(request)
    return _summary_of(services.submit(selectors.task_for(user, task_id), by=user))


@router.post("/tasks/{task_id}/accept", response=TaskSummary)
def post_accept(request: HttpRequest, task_id: UUID, body: CommentIn) -> TaskSummary:
    """Accept a submitted task."""
    user = user_of(request)
    task = selectors.task_for(user, task_id)
    return _summary_of(services.accept(task, comment=body.comment, by=user))


@router.post("/tasks/{task_id}/return", response=TaskSummary)
def post_return(request: HttpRequest, task_id: UUID, body: CommentIn) -> TaskSummary:
    """Send a submitted task back, saying why."""
    user = user_of(request)
    task = selectors.task_for(user, task_id)
    return _summary_of(services.return_(task, comment=body.comment, by=user))


@router.post("/tasks/{task_id}/reopen", response=TaskSummary)
def post_reopen(request: HttpRequest, task_id: UUID) -> TaskSummary:
    """Take an accepted task up again."""
    user = user_of(request)
    return _summary_of(services.reopen(selectors.task_for(user, task_id), by=user))


def _summary_of(task: Task) -> TaskSummary:
    project = selectors.project_of(task)
    tasks = selectors.tasks_of(project, model_digest=active_digest(project))
    return _summary(tasks.get(pk=task.pk))


def _summary(task: Task) -> TaskSummary:
    series, study = task.series, task.series.study
    counted = vars(task)  # with what the selector annotated
    return TaskSummary(
        id=task.id,
        state=State(task.state),
        series_id=series.id,
        study_id=study.id,
        study_number=study.number,
        subject=study.subject.pseudonym,
        modality=series.modality,
        slices=counted["slice_count"],
        prepared=counted["prepared"] or 0,
        accepted_masks=counted["accepted_masks"] or 0,
        state_changed_at=task.state_changed_at,
        submitted_by=task.submitted_by.username if task.submitted_by else None,
        last_comment=counted["last_comment"],
    )


def _detail(task: Task, *, user: User) -> TaskDetail:
    project = selectors.project_of(task)
    role = role_in(project, user=user)
    actions = actions_of(role) if role else []
    digest = active_digest(project)
    model = ModelVersion.objects.filter(digest=digest).first()
    return TaskDetail(
        id=task.id,
        project_id=project.id,
        project_name=project.name,
        state=State(task.state),
        actions=actions,
        moves=transitions.moves_from(
            State(task.state),
            may_annotate=Action.ANNOTATE in actions,
            may_review=Action.REVIEW in actions,
        ),
        series=_series(task.series, digest=digest),
        labels=[LabelOut.from_orm(label) for label in project.labels.all()],
        model=ModelOut.from_orm(model) if model else None,
        reviews=[ReviewOut.from_orm(r) for r in task.reviews.select_related("reviewer")],
        revisions=[RevisionOut.from_orm(r) for r in selectors.newest_revisions(task)],
        drafts=[_draft(draft) for draft in task.drafts.all()],
    )


def _series(series: Series, *, digest: str | None) -> SeriesDetail:
    prepared = prepared_slices(series, model_digest=digest) if digest else set()
    slices = Slice.objects.filter(series=series).select_related("instance").order_by("index")
    return SeriesDetail(
        id=series.id,
        series_uid=series.series_uid,
        study_uid=series.study.study_uid,
        study_number=series.study.number,
        subject=series.study.subject.pseudonym,
        modality=series.modality,
        rows=series.rows,
        columns=series.columns,
        row_spacing_mm=series.row_spacing_mm,
        column_spacing_mm=series.column_spacing_mm,
        is_color=series.is_color,
        window_centre=series.window_centre,
        window_width=series.window_width,
        slices=[
            SliceOut(
                id=slice_.id,
                index=slice_.index,
                sop_instance_uid=slice_.instance.sop_instance_uid,
                frame_number=slice_.frame_number,
                prepared=slice_.id in prepared,
            )
            for slice_ in slices
        ],
    )


def _draft(draft: Draft) -> DraftOut:
    return DraftOut(
        slice_id=draft.slice_id,
        label_id=draft.label_id,
        version=draft.version,
        accepted_version=draft.accepted_version,
        state=DraftState.model_validate(draft.state),
    )


def _erasure(erasure: Erasure | None) -> ErasureOut | None:
    return None if erasure is None else ErasureOut.from_orm(erasure)
