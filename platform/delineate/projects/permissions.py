"""What each role may do: one table, asked by every service."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet

from delineate.accounts.models import User
from delineate.errors import NotAllowed, NotFound
from delineate.projects.models import Membership, Project, Role


class Action(StrEnum):
    """What somebody may want to do in a project."""

    VIEW = "view"
    ANNOTATE = "annotate"
    REVIEW = "review"
    UPLOAD = "upload"
    EXPORT = "export"
    MANAGE = "manage"  # labels, members, the project's name and privacy
    DELETE_STUDY = "delete_study"
    MANAGE_SUBJECTS = "manage_subjects"  # merge and erase them
    RELEASE = "release"  # look at what is in quarantine, black out, let go
    VIEW_AUDIT = "view_audit"
    LEARN = "learn"  # settings, runs, which model answers


ALLOWED: Final[Mapping[Role, frozenset[Action]]] = MappingProxyType(
    {
        Role.LEAD: frozenset(Action),
        Role.REVIEWER: frozenset({Action.VIEW, Action.ANNOTATE, Action.REVIEW}),
        Role.ANNOTATOR: frozenset({Action.VIEW, Action.ANNOTATE}),
    }
)

# For the sentence of a refusal: "As annotator you may not …".
_IN_WORDS: Final[Mapping[Action, str]] = {
    Action.VIEW: "view this project",
    Action.ANNOTATE: "delineate in this project",
    Action.REVIEW: "review in this project",
    Action.UPLOAD: "upload to this project",
    Action.EXPORT: "export from this project",
    Action.MANAGE: "change this project's name, privacy, labels or members",
    Action.DELETE_STUDY: "delete studies of this project",
    Action.MANAGE_SUBJECTS: "merge or erase subjects of this project",
    Action.RELEASE: "look into this project's quarantine",
    Action.LEARN: "decide how this project learns and which model answers in it",
    Action.VIEW_AUDIT: "see this project's activity",
}


def require(user: User | AnonymousUser, action: Action, project: Project) -> Role:
    """The caller's role; NotFound for those who are no member, NotAllowed for a role without it."""
    role = role_in(project, user=user)
    if role is None:
        raise NotFound("There is no such project, or you are not a member of it.")
    if action not in ALLOWED[role]:
        raise NotAllowed(f"As {role.label.lower()} you may not {_IN_WORDS[action]}.", action=action)
    return role


def role_in(project: Project, *, user: User | AnonymousUser) -> Role | None:
    """What ``user`` is in ``project``; None for everybody who is not a member of it."""
    role = memberships_of(user).filter(project=project).values_list("role", flat=True).first()
    return None if role is None else Role(role)


def memberships_of(user: User | AnonymousUser) -> QuerySet[Membership]:
    """What ``user`` may reach: memberships, by a token for one project only that one.

    Every read and every act goes through here, so that what is narrow stays narrow.
    """
    if not (isinstance(user, User) and user.is_active):
        return Membership.objects.none()
    memberships = Membership.objects.filter(user_id=user.pk)
    if user.only_project_id is not None:
        memberships = memberships.filter(project_id=user.only_project_id)
    return memberships


def roles_with(action: Action) -> list[Role]:
    """The roles that include ``action``."""
    return [role for role in Role if action in ALLOWED[role]]


def actions_of(role: Role) -> list[Action]:
    """What ``role`` allows, in the order of the list of actions."""
    return [action for action in Action if action in ALLOWED[role]]
