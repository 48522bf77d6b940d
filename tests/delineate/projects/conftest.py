"""A project with one member of each role, and their browsers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.test import Client

from delineate.accounts.models import User
from delineate.projects.models import Project, Role
from delineate.projects.services import NewLabel, add_member, create_project


@dataclass(frozen=True)
class Team:
    """The project and its people."""

    project: Project
    lead: User
    reviewer: User
    annotator: User
    stranger: User


@pytest.fixture
def team(db) -> Team:
    """Lead, reviewer and annotator of the project "Livers", and somebody who is none of them."""
    lead, reviewer, annotator, stranger = (
        User.objects.create(username=name) for name in ("lead", "reviewer", "annotator", "stranger")
    )
    project = create_project("Livers", labels=[NewLabel("liver", "#AA3311")], by=lead)
    add_member(project, username="reviewer", role=Role.REVIEWER, by=lead)
    add_member(project, username="annotator", role=Role.ANNOTATOR, by=lead)
    return Team(project, lead, reviewer, annotator, stranger)


@pytest.fixture
def browser_of():
    """A function: a client that is signed in as a user."""

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return sign_in
