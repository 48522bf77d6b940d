"""Which models there are, and which one answers."""

from __future__ import annotations

import argparse

import pytest
from django.test import Client

from delineate.accounts.models import User
from delineate.audit.models import Event
from delineate.errors import Conflict, Invalid, NotFound
from delineate.projects.services import create_project
from delineate.registry import commands
from delineate.registry.jobs import register
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import active_model
from delineate.registry.services import make_default
from mlworker.contract.messages import CheckpointAdded

pytestmark = pytest.mark.django_db


def added(digest: str) -> CheckpointAdded:
    """The worker's word that a checkpoint is in the store."""
    return CheckpointAdded(
        request_id="0" * 32,
        digest=digest * 64,
        variant="vit_t",
        image_size=256,
        adapters=True,
        preparation=1,
        trained=False,
        origin="seed 0",
    )


@pytest.fixture
def project():
    return create_project("Livers", by=User.objects.create(username="lead"))


def test_without_a_model_a_project_has_none(project):
    with pytest.raises(Conflict) as refusal:
        active_model(project)
    assert refusal.value.code == "no_model"


def test_the_first_model_answers_at_once_and_the_second_waits(project):
    first = register(added("a"), name="first")
    second = register(added("b"), name="second")
    assert active_model(project) == first
    assert not second.is_default
    acts = Event.objects.filter(project_id=None).values_list("action", "subject")
    assert list(acts) == [
        ("model_added", f"model {'a' * 64}"),
        ("model_made_default", f"model {'a' * 64}"),
        ("model_added", f"model {'b' * 64}"),
    ]


def test_a_known_checkpoint_is_not_added_twice():
    first = register(added("a"), name="first")
    assert register(added("a"), name="again") == first
    assert ModelVersion.objects.get().name == "first"
    assert Event.objects.filter(action="model_added").count() == 1


def test_another_model_takes_over(project):
    register(added("a"), name="first")
    register(added("b"), name="second")
    make_default("b" * 64)
    assert active_model(project).name == "second"
    event = Event.objects.get(action="model_made_default", subject=f"model {'b' * 64}")
    assert event.data == {"previous": "a" * 64}
    make_default("b" * 64)
    assert Event.objects.filter(action="model_made_default").count() == 2


def test_an_unknown_model_cannot_take_over():
    with pytest.raises(NotFound) as refusal:
        make_default("c" * 64)
    assert refusal.value.code == "unknown_model"


def test_members_are_told_which_model_answers(project):
    browser = Client()
    browser.force_login(User.objects.get())
    path = f"/api/projects/{project.id}/model"
    assert browser.get(path).json()["error"]["code"] == "no_model"
    register(added("a"), name="first")
    assert browser.get(path).json() == {
        "digest": "a" * 64,
        "name": "first",
        "variant": "vit_t",
        "trained": False,
    }


def delineate_model(*words: str) -> int:
    """Run `delineate model …`."""
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args(words))


def test_models_are_listed_and_chosen_by_the_beginning_of_their_digest(capsys):
    register(added("a"), name="first")
    register(added("b"), name="second")
    assert delineate_model("default", "bb") == 0
    assert delineate_model("list") == 0
    chosen, *listed = capsys.readouterr().out.splitlines()
    assert chosen == f"{'b' * 64}\tsecond\tvit_t\tuntrained\tdefault"
    assert sorted(listed) == [f"{'a' * 64}\tfirst\tvit_t\tuntrained", chosen]


def test_a_digest_that_names_none_or_several_is_refused():
    register(added("a"), name="first")
    register(added("b"), name="second")
    with pytest.raises(NotFound, match="begins with c"):
        delineate_model("default", "c")
    with pytest.raises(Invalid, match="Several"):
        delineate_model("default", "")
