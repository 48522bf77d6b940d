"""Projects, their labels, members and activity."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema, Status
from pydantic import ConfigDict, Field, JsonValue

from delineate.accounts.api import NO_NUL
from delineate.accounts.models import User
from delineate.accounts.permissions import user_of
from delineate.audit.models import Event
from delineate.projects import selectors, services
from delineate.projects.escrow import EscrowFile
from delineate.projects.models import Label, Membership, Project, Role
from delineate.projects.permissions import Action, actions_of, memberships_of, require
from delineate.projects.privacy import Identities, Policy

router = Router(tags=["projects"])


class LabelOut(Schema):
    """A structure to delineate; ``value`` is its number in label maps."""

    id: UUID
    name: str
    color: str
    value: int


class MemberOut(Schema):
    """Somebody who works in the project."""

    user_id: int
    username: str
    display_name: str
    role: Role


class ProjectSummary(Schema):
    """A project in the list of one's own; numbers of members and labels."""

    id: UUID
    name: str
    role: Role
    members: int
    labels: int


class ProjectDetail(Schema):
    """A project, and what the caller may do in it.

    ``is_empty``: it has no studies, so that it can still be chosen whether identities are kept.
    """

    id: UUID
    name: str
    role: Role
    actions: list[Action]
    privacy: Policy
    has_escrow: bool
    is_empty: bool
    labels: list[LabelOut]
    members: list[MemberOut]


class EventOut(Schema):
    """An act, from the audit trail."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    data: dict[str, JsonValue]


class LabelIn(Schema):
    """A label to add."""

    model_config = ConfigDict(extra="forbid")

    name: str
    color: str


class LabelChange(Schema):
    """What to change of a label; absent stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    color: str | None = None


class ProjectIn(Schema):
    """A project to make."""

    model_config = ConfigDict(extra="forbid")

    name: str
    labels: list[LabelIn] = Field(default=[], max_length=services.LABELS_AT_MOST)
    identities: Identities = Identities.REMOVED


class ProjectChange(Schema):
    """Another name."""

    model_config = ConfigDict(extra="forbid")

    name: str


class MemberIn(Schema):
    """Somebody to add."""

    model_config = ConfigDict(extra="forbid")

    username: str = Field(max_length=150, pattern=NO_NUL)
    role: Role


class MemberChange(Schema):
    """Another role."""

    model_config = ConfigDict(extra="forbid")

    role: Role


@router.get("/projects", response=list[ProjectSummary])
def list_projects(request: HttpRequest) -> list[ProjectSummary]:
    """The projects one is a member of, by name."""
    user = user_of(request)
    roles = dict(memberships_of(user).values_list("project_id", "role"))
    counted = Project.objects.filter(id__in=roles).annotate(
        member_count=Count("memberships", distinct=True), label_count=Count("labels", distinct=True)
    )
    return [
        ProjectSummary(
            id=project.id,
            name=project.name,
            role=Role(roles[project.id]),
            members=project.member_count,
            labels=project.label_count,
        )
        for project in counted
    ]


@router.post("/projects", response=ProjectDetail)
def create_project(request: HttpRequest, new: ProjectIn) -> ProjectDetail:
    """Make a project and become its lead."""
    user = user_of(request)
    labels = [services.NewLabel(label.name, label.color) for label in new.labels]
    project = services.create_project(new.name, labels=labels, identities=new.identities, by=user)
    return _detail(project, user=user)


@router.get("/projects/{project_id}", response=ProjectDetail)
def get_project(request: HttpRequest, project_id: UUID) -> ProjectDetail:
    """A project with its labels and members."""
    user = user_of(request)
    return _detail(selectors.project_for(user, project_id), user=user)


@router.patch("/projects/{project_id}", response=ProjectDetail)
def change_project(request: HttpRequest, project_id: UUID, change: ProjectChange) -> ProjectDetail:
    """Rename a project."""
    user = user_of(request)
    project = selectors.project_for(user, project_id)
    return _detail(services.rename_project(project, name=change.name, by=user), user=user)


@router.put("/projects/{project_id}/privacy", response=ProjectDetail)
def change_privacy(request: HttpRequest, project_id: UUID, policy: Policy) -> ProjectDetail:
    """Choose what is kept of who patients are; 409 project_has_studies."""
    user = user_of(request)
    project = selectors.project_for(user, project_id)
    return _detail(services.change_privacy(project, policy=policy, by=user), user=user)


@router.post("/projects/{project_id}/escrow", response=EscrowFile)
def begin_escrow(request: HttpRequest, project_id: UUID, response: HttpResponse) -> EscrowFile:
    """Seal identities from now on; the answer is the only copy of the key."""
    user = user_of(request)
    file = services.begin_escrow(selectors.project_for(user, project_id), by=user)
    response["Cache-Control"] = "private, no-store"
    response["Content-Disposition"] = f'attachment; filename="{file.file_name}"'
    return file


@router.post("/projects/{project_id}/labels", response=LabelOut)
def add_label(request: HttpRequest, project_id: UUID, new: LabelIn) -> Label:
    """Add a label."""
    user = user_of(request)
    project = selectors.project_for(user, project_id)
    return services.add_label(project, name=new.name, color=new.color, by=user)


@router.patch("/labels/{label_id}", response=LabelOut)
def change_label(request: HttpRequest, label_id: UUID, change: LabelChange) -> Label:
    """Rename or recolour a label."""
    user = user_of(request)
    label = selectors.label_for(user, label_id)
    return services.change_label(label, name=change.name, color=change.color, by=user)


@router.delete("/labels/{label_id}", response={204: None})
def remove_label(request: HttpRequest, label_id: UUID) -> Status[None]:
    """Remove a label that was never used; 409 label_in_use."""
    user = user_of(request)
    services.remove_label(selectors.label_for(user, label_id), by=user)
    return Status(204, None)


@router.post("/projects/{project_id}/members", response=MemberOut)
def add_member(request: HttpRequest, project_id: UUID, new: MemberIn) -> MemberOut:
    """Add a member; 422 unknown_user."""
    user = user_of(request)
    project = selectors.project_for(user, project_id)
    return _member(services.add_member(project, username=new.username, role=new.role, by=user))


@router.patch("/projects/{project_id}/members/{user_id}", response=MemberOut)
def change_member(
    request: HttpRequest, project_id: UUID, user_id: int, change: MemberChange
) -> MemberOut:
    """Give a member another role; 409 last_lead."""
    user = user_of(request)
    project = selectors.project_for(user, project_id)
    return _member(services.change_member(project, user_id=user_id, role=change.role, by=user))


@router.delete("/projects/{project_id}/members/{user_id}", response={204: None})
def remove_member(request: HttpRequest, project_id: UUID, user_id: int) -> Status[None]:
    """End a membership; 409 last_lead."""
    user = user_of(request)
    services.remove_member(selectors.project_for(user, project_id), user_id=user_id, by=user)
    return Status(204, None)


@router.get("/projects/{project_id}/events", response=list[EventOut])
def list_events(
    request: HttpRequest,
    project_id: UUID,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> QuerySet[Event]:
    """What was done in the project, the newest first; ``before`` a number gives older ones."""
    user = user_of(request)
    project = selectors.project_for(user, project_id)
    require(user, Action.VIEW_AUDIT, project)
    events = Event.objects.filter(project_id=project.id).order_by("-number")
    if before is not None:
        events = events.filter(number__lt=before)
    return events[:limit]


def _detail(project: Project, *, user: User) -> ProjectDetail:
    role = require(user, Action.VIEW, project)
    return ProjectDetail(
        id=project.id,
        name=project.name,
        role=role,
        actions=actions_of(role),
        privacy=project.privacy,
        has_escrow=project.has_escrow,
        is_empty=selectors.is_empty(project),
        labels=[LabelOut.model_validate(label) for label in project.labels.all()],
        members=[_member(membership) for membership in selectors.members_of(project)],
    )


def _member(membership: Membership) -> MemberOut:
    return MemberOut(
        user_id=membership.user_id,
        username=membership.user.username,
        display_name=membership.user.display_name,
        role=Role(membership.role),
    )
