"""Reads of tasks, drafts and masks, each within what its reader may know of."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery

from delineate.accounts.models import User
from delineate.annotation.models import Draft, MaskRevision, Review, Task
from delineate.annotation.transitions import State
from delineate.errors import NotFound
from delineate.jobs import JobState
from delineate.projects.models import Label, Project
from delineate.projects.selectors import projects_of
from delineate.studies.models import Encoding, Slice
from delineate.studies.selectors import not_held, refuse_to_show_held


def task_for(user: User | AnonymousUser, task_id: UUID) -> Task:
    """The task, for members of its project; NotFound for everybody else, InQuarantine."""
    task = (
        Task.objects.filter(id=task_id, series__study__project__in=projects_of(user))
        .select_related("series__study__project", "series__study__subject", "submitted_by")
        .first()
    )
    if task is None:
        raise NotFound("There is no such task, or you are not a member of its project.")
    refuse_to_show_held(task.series, reader=user)
    return task


def project_of(task: Task) -> Project:
    """The project a task belongs to."""
    return task.series.study.project


def tasks_of(project: Project, *, model_digest: str | None) -> QuerySet[Task]:
    """A project's tasks that can be worked on, each with ``slice_count``, ``prepared``,
    ``accepted_masks``, and ``last_comment``.
    """
    prepared = (
        Encoding.objects.filter(
            slice__series=OuterRef("series"),
            model_digest=model_digest or "",
            state=JobState.DONE,
        )
        .order_by()
        .values("slice__series")
        .annotate(n=Count("id"))
        .values("n")
    )
    masks = (
        MaskRevision.objects.filter(task=OuterRef("pk"), number=1)
        .order_by()
        .values("task")
        .annotate(n=Count("id"))
        .values("n")
    )
    last_review = Review.objects.filter(task=OuterRef("pk")).order_by("-at")
    return (
        Task.objects.filter(not_held("series__"), series__study__project=project)
        .select_related("series__study__subject", "submitted_by")
        .annotate(
            slice_count=Count("series__slices"),
            prepared=Subquery(prepared),
            accepted_masks=Subquery(masks),
            last_comment=Subquery(last_review.values("comment")[:1]),
        )
        .order_by("series__study__number", "series__number", "id")
    )


def slice_and_label(task: Task, *, slice_id: UUID, label_id: UUID) -> tuple[Slice, Label]:
    """A slice of the task's series and a label of its project; NotFound otherwise."""
    slice_ = Slice.objects.filter(id=slice_id, series_id=task.series_id).first()
    if slice_ is None:
        raise NotFound("The task has no such slice.", code="slice_gone")
    label = Label.objects.filter(id=label_id, project=project_of(task)).first()
    if label is None:
        raise NotFound("The project has no such label.", code="label_gone")
    return slice_, label


def newest_revisions(task: Task) -> QuerySet[MaskRevision]:
    """The revision that counts, for each slice and label of a task."""
    return (
        MaskRevision.objects.filter(task=task)
        .order_by("slice_id", "label_id", "-number")
        .distinct("slice_id", "label_id")
        .select_related("by")
    )


def unaccepted_drafts(task: Task) -> list[Draft]:
    """Drafts that have changed since they were last accepted."""
    return list(
        task.drafts.filter(version__gt=F("accepted_version")).select_related("slice", "label")
    )


def accepted_masks(project: Project, *, reviewed_only: bool) -> QuerySet[MaskRevision]:
    """The masks that count in a project, series by series and slice by slice.

    ``reviewed_only``: only of tasks that a reviewer has accepted.
    """
    newest = (
        MaskRevision.objects.filter(slice=OuterRef("slice"), label=OuterRef("label"))
        .order_by("-number")
        .values("number")[:1]
    )
    revisions = MaskRevision.objects.filter(
        not_held("task__series__"), task__series__study__project=project, number=Subquery(newest)
    )
    if reviewed_only:
        revisions = revisions.filter(task__state=State.ACCEPTED)
    return revisions.select_related("task__series__study", "slice", "label", "by").order_by(
        "task__series__study__number",
        "task__series__number",
        "task__series__id",
        "slice__index",
        "label__value",
    )


def progress_of(project: Project, *, model_digest: str | None) -> dict[str, object]:
    """How a project stands, in numbers."""
    tasks = Task.objects.filter(not_held("series__"), series__study__project=project)
    counts = tasks.aggregate(
        **{state.value: Count("id", filter=Q(state=state.value)) for state in State}
    )
    return {
        "studies": project.studies.count(),
        # What is held is not prepared, and nobody's work yet.
        "slices": Slice.objects.filter(
            not_held("series__"), series__study__project=project
        ).count(),
        "prepared_slices": Encoding.objects.filter(
            not_held("slice__series__"),
            slice__series__study__project=project,
            model_digest=model_digest or "",
            state=JobState.DONE,
        ).count(),
        "tasks": counts,
        "accepted_masks": MaskRevision.objects.filter(task__in=tasks, number=1).count(),
    }


def masks_by_subject(project: Project) -> dict[int, int]:
    """How many slices and labels of each subject have an accepted mask, by its id."""
    firsts = MaskRevision.objects.filter(task__series__study__project=project, number=1)
    subject = "task__series__study__subject"
    counts = firsts.order_by().values_list(subject).annotate(n=Count("id"))
    return dict(counts.values_list(subject, "n"))
