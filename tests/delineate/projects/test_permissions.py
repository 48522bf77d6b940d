"""The table of roles and actions, whole."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from delineate.accounts.models import User
from delineate.errors import NotAllowed, NotFound
from delineate.projects.models import Membership, Project, Role
from delineate.projects.permissions import Action, actions_of, require

EXPECTED = {
    # action: lead, reviewer, annotator
    Action.VIEW: (True, True, True),
    Action.ANNOTATE: (True, True, True),
    Action.REVIEW: (True, True, False),
    Action.UPLOAD: (True, False, False),
    Action.EXPORT: (True, False, False),
    Action.MANAGE: (True, False, False),
    Action.DELETE_STUDY: (True, False, False),
    Action.MANAGE_SUBJECTS: (True, False, False),
    Action.RELEASE: (True, False, False),
    Action.VIEW_AUDIT: (True, False, False),
    Action.LEARN: (True, False, False),
}
ROLES = (Role.LEAD, Role.REVIEWER, Role.ANNOTATOR)
CASES = [
    (role, action, allowed)
    for action, row in EXPECTED.items()
    for role, allowed in zip(ROLES, row, strict=True)
]


def test_every_role_and_action_is_in_the_table():
    assert set(EXPECTED) == set(Action)
    assert set(ROLES) == set(Role)


@pytest.mark.django_db
@pytest.mark.parametrize(("role", "action", "allowed"), CASES)
def test_a_member_may_do_what_the_role_allows(role, action, allowed):
    user = User.objects.create(username="anna")
    project = Project.objects.create(name="Livers")
    Membership.objects.create(project=project, user=user, role=role)
    if allowed:
        assert require(user, action, project) is role
    else:
        with pytest.raises(NotAllowed) as refusal:
            require(user, action, project)
        assert str(refusal.value).startswith(f"As {role.label.lower()} you may not ")
        assert refusal.value.data == {"action": action}
    assert (action in actions_of(role)) is allowed


@pytest.mark.django_db
@pytest.mark.parametrize("action", list(Action))
def test_a_project_does_not_exist_for_others(action):
    project = Project.objects.create(name="Livers")
    others: list[User | AnonymousUser] = [
        User.objects.create(username="stranger"),
        User.objects.create(username="root", is_superuser=True),
        AnonymousUser(),
    ]
    gone = User.objects.create(username="gone", is_active=False)
    Membership.objects.create(project=project, user=gone, role=Role.LEAD)
    for user in [*others, gone]:
        with pytest.raises(NotFound):
            require(user, action, project)
