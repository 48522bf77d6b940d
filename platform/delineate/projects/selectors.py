"""Reads of projects; each gives only what its reader may know of."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet

from delineate.accounts.models import User
from delineate.errors import NotFound
from delineate.jobs import JobState
from delineate.projects.models import Label, Membership, Project
from delineate.projects.permissions import memberships_of


def project_for(user: User | AnonymousUser, project_id: UUID) -> Project:
    """The project, for its members; NotFound for everybody else."""
    return membership_for(user, project_id).project


def membership_for(user: User | AnonymousUser, project_id: UUID) -> Membership:
    """Somebody's membership, with its project; NotFound where there is none."""
    memberships = memberships_of(user).filter(project_id=project_id).select_related("project")
    membership = memberships.first()
    if membership is None:
        raise NotFound("There is no such project, or you are not a member of it.")
    return membership


def project_named(name_or_id: str) -> Project:
    """The one project of that name or id, for the command line; NotFound."""
    found = [p for p in Project.objects.all() if name_or_id in (p.name, str(p.id))]
    if len(found) != 1:
        raise NotFound(f"{len(found)} projects are called {name_or_id}; give its id.")
    return found[0]


def label_for(user: User | AnonymousUser, label_id: UUID) -> Label:
    """The label, for members of its project; NotFound for everybody else."""
    label = (
        Label.objects.filter(id=label_id, project__in=projects_of(user))
        .select_related("project")
        .first()
    )
    if label is None:
        raise NotFound("There is no such label, or you are not a member of its project.")
    return label


def projects_of(user: User | AnonymousUser) -> QuerySet[Project]:
    """The projects ``user`` is a member of, and may reach."""
    return Project.objects.filter(memberships__in=memberships_of(user))


def is_empty(project: Project) -> bool:
    """Whether there are no studies, and no upload that may be about to make some."""
    ended = (JobState.DONE, JobState.FAILED)
    return not (project.studies.exists() or project.uploads.exclude(state__in=ended).exists())


def members_of(project: Project) -> QuerySet[Membership]:
    """Who works in ``project``, with their accounts."""
    return project.memberships.select_related("user")
