"""The demo is made once, whatever interrupts it, and leaves alone what people have changed."""

from __future__ import annotations

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import authenticate

from delineate.accounts.models import User
from delineate.demo import seed
from delineate.projects.models import Project, Role
from delineate.registry.models import ModelVersion
from delineate.studies.models import Upload
from tests import null_worker
from tests.delineate.factories import new_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(tmp_path):
    """Where the passwords are kept; there is a model already, so no worker is needed."""
    new_model()
    return tmp_path / "sign-ins.txt"


def test_a_newcomer_finds_people_a_project_and_studies(path):
    passwords = seed.seed(path)
    for role, username in seed.PEOPLE.items():
        user = authenticate(username=username, password=passwords[username])
        assert isinstance(user, User)
        assert user.memberships.get().role == role
        assert not user.is_superuser
    project = Project.objects.get()
    assert [label.name for label in project.labels.all()] == [new.name for new in seed.LABELS]
    assert project.uploads.count() == len(seed.STUDIES)


def test_again_changes_nothing(path):
    passwords = seed.seed(path)
    project = Project.objects.get()
    project.name = "Ours now"
    project.save()
    person = User.objects.get(username=seed.PEOPLE[Role.LEAD])
    person.set_password("chosen by a person")
    person.save()
    assert seed.seed(path) == passwords
    assert Project.objects.get().name == "Ours now"
    assert Upload.objects.count() == len(seed.STUDIES)
    assert authenticate(username=person.username, password="chosen by a person") == person


def test_an_interrupted_demo_is_finished(path, settings, tmp_path):
    blocked = tmp_path / "a-file-where-a-folder-should-be"
    blocked.touch()
    settings.ENVIRONMENT = django_settings.ENVIRONMENT.model_copy(
        update={"storage_url": f"file://{blocked}/objects"}
    )
    with pytest.raises(NotADirectoryError):
        seed.seed(path)
    settings.ENVIRONMENT = django_settings.ENVIRONMENT.model_copy(
        update={"storage_url": f"file://{tmp_path}/objects"}
    )
    passwords = seed.seed(path)
    assert Project.objects.count() == 1
    assert Upload.objects.count() == len(seed.STUDIES)
    assert all(authenticate(username=name, password=passwords[name]) for name in passwords)


def test_lost_passwords_are_made_again(path):
    lost = seed.seed(path)
    path.unlink()
    made = seed.seed(path)
    for username, password in made.items():
        assert password != lost[username]
        assert authenticate(username=username, password=password) is not None


@pytest.mark.django_db(transaction=True)
def test_where_no_trained_model_is_shipped_one_of_random_weights_answers(services, tmp_path):
    with null_worker.running(services.redis_url, services.storage_url):
        seed.seed(tmp_path / "sign-ins.txt")
        seed.seed(tmp_path / "sign-ins.txt")
    model = ModelVersion.objects.get()
    assert (model.variant, model.origin) == (seed.MODEL_VARIANT, f"seed {seed.MODEL_SEED}")
    assert (model.trained, model.is_default) == (False, True)


def test_it_says_where_its_passwords_go_or_that_they_have_no_place(path, settings, capsys):
    settings.ENVIRONMENT = django_settings.ENVIRONMENT.model_copy(update={"demo_sign_ins": path})
    assert seed.main() == 0
    said = capsys.readouterr().out
    assert str(path) in said
    assert all(username in said for username in seed.PEOPLE.values())
    settings.ENVIRONMENT = django_settings.ENVIRONMENT.model_copy(update={"demo_sign_ins": None})
    assert seed.main() == 1
    assert "DELINEATE_DEMO_SIGN_INS" in capsys.readouterr().err
