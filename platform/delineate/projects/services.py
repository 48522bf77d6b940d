"""The only writers of projects, labels and memberships."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from delineate import live
from delineate.accounts.models import User
from delineate.accounts.permissions import require_all_projects
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid, NotFound
from delineate.projects.escrow import EscrowFile, new_escrow
from delineate.projects.locking import lock
from delineate.projects.models import Label, Membership, Project, Role
from delineate.projects.permissions import Action, require
from delineate.projects.privacy import Identities, Policy
from delineate.projects.selectors import is_empty

NAME_LENGTH: Final = 120
LABEL_NAME_LENGTH: Final = 64
LABELS_AT_MOST: Final = 255  # a label's value fills one byte of an exported label map


class NewLabel(NamedTuple):
    """A label to add: its name and its colour, "#rrggbb"."""

    name: str
    color: str


def create_project(
    name: str,
    *,
    labels: Sequence[NewLabel] = (),
    identities: Identities = Identities.REMOVED,
    by: User,
) -> Project:
    """A project with ``by`` as its lead.

    Raises NotAllowed ``token_narrowed``, Invalid ``name_invalid``, ``label_name_invalid`` or
    ``color_invalid``, Conflict ``label_exists``.
    """
    require_all_projects(by)
    name = _project_name(name)
    with transaction.atomic():
        project = Project.objects.create(name=name)
        Membership.objects.create(project=project, user=by, role=Role.LEAD)
        audit.project_created(project.id, by=by, name=name)
        if identities is not Identities.REMOVED:
            _set_privacy(project, project.privacy.model_copy(update={"identities": identities}), by)
        for label in labels:
            _add_label(project, label=label, by=by)
    return project


def rename_project(project: Project, *, name: str, by: User) -> Project:
    """Give a project another name; Invalid ``name_invalid``."""
    require(by, Action.MANAGE, project)
    name = _project_name(name)
    with transaction.atomic():
        project = lock(project.id)
        before, project.name = project.name, name
        project.save(update_fields=["name"])
        audit.project_renamed(project.id, by=by, before=before, after=name)
        live.tell(project.id, "project", id=project.id)
    return project


def change_privacy(project: Project, *, policy: Policy, by: User) -> Project:
    """Keep something else of who the patients of later uploads are.

    Raises Conflict ``project_has_studies``: known and unknown patients are not in one project;
    ``escrow_begun``.
    """
    require(by, Action.MANAGE, project)
    with transaction.atomic():
        project = lock(project.id)
        if policy.identities is not project.privacy.identities:
            _refuse_with_studies(
                project, "Whether identities are kept is chosen before the first upload."
            )
            if project.has_escrow:
                raise Conflict("This project's identities are sealed.", code="escrow_begun")
        if policy != project.privacy:
            _set_privacy(project, policy, by)
            live.tell(project.id, "project", id=project.id)
    return project


def begin_escrow(project: Project, *, by: User) -> EscrowFile:
    """Seal identities from the first study on; the key, which is kept nowhere here.

    Raises Conflict ``project_has_studies``, ``escrow_begun`` or ``identities_kept``.
    """
    require(by, Action.MANAGE, project)
    with transaction.atomic():
        project = lock(project.id)
        if project.has_escrow:
            raise Conflict("This project's identities are sealed already.", code="escrow_begun")
        if project.privacy.identities is Identities.KEPT:
            raise Conflict("This project keeps identities as they are.", code="identities_kept")
        _refuse_with_studies(
            project, "Identities are sealed from the first study on or not at all."
        )
        file = new_escrow(project.id)
        project.escrow_public_key = file.public_key
        project.save(update_fields=["escrow_public_key"])
        audit.escrow_begun(project.id, by=by, public_key=file.public_key.hex())
        live.tell(project.id, "project", id=project.id)
    return file


def add_label(project: Project, *, name: str, color: str, by: User) -> Label:
    """A label with a value that no label of the project ever had.

    Raises Invalid ``label_name_invalid`` or ``color_invalid``, Conflict ``label_exists`` or
    ``too_many_labels``.
    """
    require(by, Action.MANAGE, project)
    with transaction.atomic():
        label = _add_label(lock(project.id), label=NewLabel(name, color), by=by)
        live.tell(project.id, "labels")
    return label


def change_label(label: Label, *, name: str | None, color: str | None, by: User) -> Label:
    """Another name or colour; None keeps it. Raises as ``add_label`` does."""
    require(by, Action.MANAGE, label.project)
    with transaction.atomic():
        project = lock(label.project_id)
        label = _current(label)
        before = f"{label.name} {label.color}"
        if name is not None:
            label.name = _label_name(name)
            _refuse_taken(project, name=label.name, other_than=label)
        if color is not None:
            label.color = _color(color)
        label.save(update_fields=["name", "color"])
        audit.label_changed(
            project.id, label.id, by=by, name=label.name, color=label.color, before=before
        )
        live.tell(project.id, "labels")
    return label


def remove_label(label: Label, *, by: User) -> None:
    """Remove a label nobody has used; Conflict ``label_in_use`` for the others."""
    require(by, Action.MANAGE, label.project)
    try:
        with transaction.atomic():
            project = lock(label.project_id)
            label = _current(label)
            audit.label_removed(project.id, label.id, by=by, name=label.name, value=label.value)
            live.tell(project.id, "labels")
            label.delete()
    # IntegrityError: its first use was committed while it was being removed.
    except (ProtectedError, IntegrityError) as error:
        raise Conflict(
            f"The label {label.name} has been delineated and cannot be removed.",
            code="label_in_use",
        ) from error


def add_member(project: Project, *, username: str, role: Role, by: User) -> Membership:
    """Let somebody work in the project; Invalid ``unknown_user``, Conflict ``already_member``."""
    require(by, Action.MANAGE, project)
    user = User.objects.filter(username=username, is_active=True).first()
    if user is None:
        raise Invalid(f"There is no user {username}.", code="unknown_user", username=username)
    with transaction.atomic():
        project = lock(project.id)
        if project.memberships.filter(user=user).exists():
            raise Conflict(f"{username} is a member already.", code="already_member")
        membership = project.memberships.create(user=user, role=role)
        audit.member_added(project.id, username, by=by, role=role)
        live.tell(project.id, "members")
    return membership


def change_member(project: Project, *, user_id: int, role: Role, by: User) -> Membership:
    """Give a member another role; NotFound for others, Conflict ``last_lead``."""
    require(by, Action.MANAGE, project)
    with transaction.atomic():
        project = lock(project.id)
        membership = _membership(project, user_id=user_id)
        if role != Role.LEAD:
            _keep_a_lead(project, without=membership)
        before, membership.role = membership.role, role
        membership.save(update_fields=["role"])
        audit.member_changed(project.id, membership.user.username, by=by, before=before, role=role)
        live.tell(project.id, "members")
    return membership


def remove_member(project: Project, *, user_id: int, by: User) -> None:
    """End a membership at once, open pages included; NotFound, Conflict ``last_lead``."""
    require(by, Action.MANAGE, project)
    with transaction.atomic():
        project = lock(project.id)
        membership = _membership(project, user_id=user_id)
        _keep_a_lead(project, without=membership)
        username, role = membership.user.username, membership.role
        membership.delete()
        audit.member_removed(project.id, username, by=by, role=role)
        live.tell(project.id, "members")


def _add_label(project: Project, *, label: NewLabel, by: User) -> Label:
    name, color = _label_name(label.name), _color(label.color)
    _refuse_taken(project, name=name, other_than=None)
    value = project.last_label_value + 1
    if value > LABELS_AT_MOST:
        raise Conflict(
            f"A project can have {LABELS_AT_MOST} labels in its life, removed ones included.",
            code="too_many_labels",
        )
    project.last_label_value = value
    project.save(update_fields=["last_label_value"])
    added = project.labels.create(name=name, color=color, value=value)
    audit.label_added(project.id, added.id, by=by, name=name, color=color, value=value)
    return added


def _set_privacy(project: Project, policy: Policy, by: User) -> None:
    before = project.privacy
    for name, value in policy:
        setattr(project, name, value)
    project.save(update_fields=list(Policy.model_fields))
    audit.privacy_changed(project.id, by=by, before=_in_words(before), after=_in_words(policy))


def _in_words(policy: Policy) -> list[str]:
    return [f"{name}: {value}" for name, value in policy.model_dump(mode="json").items()]


def _refuse_with_studies(project: Project, sentence: str) -> None:
    if not is_empty(project):
        raise Conflict(f"{sentence} Make another project.", code="project_has_studies")


def _current(label: Label) -> Label:
    current = Label.objects.filter(pk=label.pk).first()
    if current is None:
        raise NotFound("There is no such label any more.")
    return current


def _membership(project: Project, *, user_id: int) -> Membership:
    membership = project.memberships.select_related("user").filter(user_id=user_id).first()
    if membership is None:
        raise NotFound("There is no such member.")
    return membership


def _keep_a_lead(project: Project, *, without: Membership) -> None:
    if not project.memberships.filter(role=Role.LEAD).exclude(pk=without.pk).exists():
        raise Conflict("A project keeps at least one lead.", code="last_lead")


def _refuse_taken(project: Project, *, name: str, other_than: Label | None) -> None:
    taken = project.labels.filter(name__iexact=name)
    if other_than is not None:
        taken = taken.exclude(pk=other_than.pk)
    if taken.exists():
        raise Conflict(f"There is a label {name} already.", code="label_exists")


def _project_name(name: str) -> str:
    return _name(name, at_most=NAME_LENGTH, what="A project's", code="name_invalid")


def _label_name(name: str) -> str:
    # A backslash separates values in DICOM, where the name becomes a SegmentLabel.
    if "\\" in name:
        raise Invalid("A label's name has no backslash.", code="label_name_invalid")
    return _name(name, at_most=LABEL_NAME_LENGTH, what="A label's", code="label_name_invalid")


def _name(name: str, *, at_most: int, what: str, code: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= at_most or not name.isprintable():
        raise Invalid(f"{what} name has 1 to {at_most} printable characters.", code=code)
    return name


def _color(color: str) -> str:
    color = color.lower()
    if not re.fullmatch("#[0-9a-f]{6}", color):
        raise Invalid("A colour is written #rrggbb.", code="color_invalid")
    return color
