"""What a project keeps of who its patients are: chosen by a lead, in the trail, and in time."""

from __future__ import annotations

import pytest

from delineate.audit.models import Event
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.projects.privacy import Policy
from tests.delineate.factories import new_study

pytestmark = pytest.mark.django_db

JSON = "application/json"
DEFAULT = Policy().model_dump(mode="json")


@pytest.fixture
def put(team, browser_of):
    """A function: choose as the lead does; the answer."""

    def choose(**changes):
        return browser_of(team.lead).put(
            f"/api/projects/{team.project.id}/privacy", DEFAULT | changes, content_type=JSON
        )

    return choose


def test_a_new_project_removes_identities(team, browser_of):
    detail = browser_of(team.annotator).get(f"/api/projects/{team.project.id}").json()
    assert detail["privacy"] == DEFAULT
    assert detail["privacy"]["identities"] == "removed"
    assert detail["is_empty"]


def test_options_are_changed_and_the_change_is_recorded(team, put):
    answer = put(dates="removed", device=True)
    assert answer.status_code == 200
    assert answer.json()["privacy"] == DEFAULT | {"dates": "removed", "device": True}
    assert Project.objects.get().privacy.device
    event = Event.objects.get(action="privacy_changed")
    assert event.actor == "lead"
    assert {"dates: shifted", "device: False"} <= set(event.data["before"])
    assert {"dates: removed", "device: True"} <= set(event.data["after"])


def test_what_is_so_already_is_no_event(put):
    assert put().status_code == 200
    assert not Event.objects.filter(action="privacy_changed").exists()


def test_an_empty_project_can_come_to_keep_identities_and_that_is_named(put):
    assert put(identities="kept").status_code == 200
    event = Event.objects.get(action="privacy_changed")
    assert "identities: kept" in event.data["after"]


def test_with_studies_identities_stay_as_they_were_chosen(team, put):
    new_study(team.project)
    refused = put(identities="kept")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "project_has_studies")
    assert put(device=True).status_code == 200
    assert not Event.objects.filter(data__after__contains="identities: kept").exists()


@pytest.mark.parametrize(
    ("state", "status"), [(JobState.RUNNING, 409), (JobState.DONE, 200), (JobState.FAILED, 200)]
)
def test_an_upload_on_its_way_counts_as_studies(team, put, state, status):
    team.project.uploads.create(by=team.lead, state=state)
    assert put(identities="kept").status_code == status


def test_a_project_can_be_made_to_keep_identities(team, browser_of):
    made = browser_of(team.stranger).post(
        "/api/projects", {"name": "Known", "identities": "kept"}, content_type=JSON
    )
    assert made.json()["privacy"]["identities"] == "kept"
    actions = Event.objects.filter(project_id=made.json()["id"]).values_list("action", flat=True)
    assert list(actions.order_by("number")) == ["project_created", "privacy_changed"]


@pytest.mark.parametrize("changes", [{"identities": "perhaps"}, {"more": True}, {"dates": None}])
def test_what_is_no_choice_is_refused(put, changes):
    assert put(**changes).status_code == 422
