"""Projects, labels and members, through the front door."""

from __future__ import annotations

import pytest

from delineate.accounts.models import User
from delineate.audit.chain import verify
from delineate.audit.models import Event
from delineate.projects.models import Label, Membership, Project

pytestmark = pytest.mark.django_db

JSON = "application/json"


def acts_of(project):
    return list(
        Event.objects.filter(project_id=project.id)
        .order_by("number")
        .values_list("actor", "action")
    )


def code_of(response):
    return response.status_code, response.json()["error"]["code"]


def test_who_makes_a_project_leads_it(team, browser_of):
    browser = browser_of(team.stranger)
    labels = [{"name": " liver ", "color": "#AABBCC"}, {"name": "spleen", "color": "#00ff00"}]
    made = browser.post("/api/projects", {"name": " New ", "labels": labels}, content_type=JSON)
    assert made.status_code == 200
    detail = made.json()
    assert detail["name"] == "New"
    assert detail["role"] == "lead"
    assert "manage" in detail["actions"]
    assert [(each["name"], each["color"], each["value"]) for each in detail["labels"]] == [
        ("liver", "#aabbcc", 1),
        ("spleen", "#00ff00", 2),
    ]
    assert [(each["username"], each["role"]) for each in detail["members"]] == [
        ("stranger", "lead")
    ]
    project = Project.objects.get(id=detail["id"])
    assert acts_of(project) == [
        ("stranger", "project_created"),
        ("stranger", "label_added"),
        ("stranger", "label_added"),
    ]
    assert verify(project.id) == 3


def test_one_sees_ones_own_projects_only(team, browser_of):
    (seen,) = browser_of(team.annotator).get("/api/projects").json()
    assert seen == {
        "id": str(team.project.id),
        "name": "Livers",
        "role": "annotator",
        "members": 3,
        "labels": 1,
    }
    assert browser_of(team.stranger).get("/api/projects").json() == []


def test_a_project_tells_what_one_may_do_in_it(team, browser_of):
    path = f"/api/projects/{team.project.id}"
    assert browser_of(team.annotator).get(path).json()["actions"] == ["view", "annotate"]
    assert code_of(browser_of(team.stranger).get(path)) == (404, "not_found")


def test_a_lead_renames_a_project(team, browser_of):
    path = f"/api/projects/{team.project.id}"
    renamed = browser_of(team.lead).patch(path, {"name": "Spleens"}, content_type=JSON)
    assert renamed.json()["name"] == "Spleens"
    event = Event.objects.get(action="project_renamed")
    assert event.data == {"before": "Livers", "after": "Spleens"}
    refused = browser_of(team.reviewer).patch(path, {"name": "Mine"}, content_type=JSON)
    assert code_of(refused) == (403, "not_allowed")


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "a\nb", "a\x00b"])
def test_a_project_needs_a_name(team, browser_of, name):
    response = browser_of(team.lead).post("/api/projects", {"name": name}, content_type=JSON)
    assert code_of(response) == (422, "name_invalid")


@pytest.mark.parametrize(
    ("label", "status", "code"),
    [
        ({"name": "", "color": "#aabbcc"}, 422, "label_name_invalid"),
        ({"name": "x" * 65, "color": "#aabbcc"}, 422, "label_name_invalid"),
        ({"name": "a\\b", "color": "#aabbcc"}, 422, "label_name_invalid"),
        ({"name": "spleen", "color": "red"}, 422, "color_invalid"),
        ({"name": "spleen", "color": "#aabbcc\n"}, 422, "color_invalid"),
        ({"name": "Liver", "color": "#aabbcc"}, 409, "label_exists"),
        ({"name": "spleen"}, 422, "invalid"),
        ({"name": "spleen", "color": "#aabbcc", "value": 7}, 422, "invalid"),
    ],
)
def test_a_label_that_cannot_be_is_refused_by_name(team, browser_of, label, status, code):
    path = f"/api/projects/{team.project.id}/labels"
    assert code_of(browser_of(team.lead).post(path, label, content_type=JSON)) == (status, code)
    assert team.project.labels.count() == 1
    assert verify(team.project.id) == 4


def test_a_labels_value_is_never_given_again(team, browser_of):
    browser = browser_of(team.lead)
    path = f"/api/projects/{team.project.id}/labels"
    second = browser.post(path, {"name": "spleen", "color": "#00ff00"}, content_type=JSON).json()
    assert second["value"] == 2
    assert browser.delete(f"/api/labels/{second['id']}").status_code == 204
    third = browser.post(path, {"name": "spleen", "color": "#00ff00"}, content_type=JSON).json()
    assert third["value"] == 3


def test_a_project_runs_out_of_label_values_by_name(team, browser_of):
    Project.objects.filter(id=team.project.id).update(last_label_value=255)
    path = f"/api/projects/{team.project.id}/labels"
    response = browser_of(team.lead).post(
        path, {"name": "spleen", "color": "#00ff00"}, content_type=JSON
    )
    assert code_of(response) == (409, "too_many_labels")


def test_a_label_is_renamed_and_recoloured_apart(team, browser_of):
    browser = browser_of(team.lead)
    path = f"/api/labels/{team.project.labels.get().id}"
    assert browser.patch(path, {"name": "Liver"}, content_type=JSON).json()["color"] == "#aa3311"
    changed = browser.patch(path, {"color": "#000000"}, content_type=JSON).json()
    assert (changed["name"], changed["color"], changed["value"]) == ("Liver", "#000000", 1)
    refused = browser_of(team.annotator).patch(path, {"name": "x"}, content_type=JSON)
    assert code_of(refused) == (403, "not_allowed")
    hidden = browser_of(team.stranger).patch(path, {"name": "x"}, content_type=JSON)
    assert code_of(hidden) == (404, "not_found")


def test_members_come_and_go(team, browser_of):
    browser = browser_of(team.lead)
    path = f"/api/projects/{team.project.id}/members"
    new = {"username": "stranger", "role": "annotator"}
    added = browser.post(path, new, content_type=JSON)
    assert added.json() == {
        "user_id": team.stranger.id,
        "username": "stranger",
        "display_name": "stranger",
        "role": "annotator",
    }
    assert browser_of(team.stranger).get(f"/api/projects/{team.project.id}").status_code == 200
    assert code_of(browser.post(path, new, content_type=JSON)) == (409, "already_member")
    member = f"{path}/{team.stranger.id}"
    assert browser.patch(member, {"role": "reviewer"}, content_type=JSON).json()["role"] == (
        "reviewer"
    )
    assert browser.delete(member).status_code == 204
    assert browser_of(team.stranger).get(f"/api/projects/{team.project.id}").status_code == 404
    assert code_of(browser.delete(member)) == (404, "not_found")
    assert acts_of(team.project)[-3:] == [
        ("lead", "member_added"),
        ("lead", "member_changed"),
        ("lead", "member_removed"),
    ]


@pytest.mark.parametrize("username", ["nobody", "gone"])
def test_only_an_account_in_use_can_be_added(team, browser_of, username):
    User.objects.create(username="gone", is_active=False)
    path = f"/api/projects/{team.project.id}/members"
    response = browser_of(team.lead).post(
        path, {"username": username, "role": "lead"}, content_type=JSON
    )
    assert code_of(response) == (422, "unknown_user")


def test_the_last_lead_stays(team, browser_of):
    browser = browser_of(team.lead)
    member = f"/api/projects/{team.project.id}/members/{team.lead.id}"
    step_down = browser.patch(member, {"role": "annotator"}, content_type=JSON)
    assert code_of(step_down) == (409, "last_lead")
    assert code_of(browser.delete(member)) == (409, "last_lead")
    assert Membership.objects.get(user=team.lead).role == "lead"
    other = f"/api/projects/{team.project.id}/members/{team.reviewer.id}"
    browser.patch(other, {"role": "lead"}, content_type=JSON)
    assert browser.delete(member).status_code == 204


def test_the_activity_is_the_leads_to_read(team, browser_of):
    path = f"/api/projects/{team.project.id}/events"
    newest, before = browser_of(team.lead).get(f"{path}?limit=2").json()
    assert (newest["number"], newest["action"]) == (4, "member_added")
    assert (newest["actor"], newest["subject"]) == ("lead", "user annotator")
    assert newest["data"] == {"role": "annotator"}
    older = browser_of(team.lead).get(f"{path}?before={before['number']}").json()
    assert [event["number"] for event in older] == [2, 1]
    assert code_of(browser_of(team.reviewer).get(path)) == (403, "not_allowed")
    assert code_of(browser_of(team.stranger).get(path)) == (404, "not_found")


def test_numbers_beyond_the_database_name_nothing(team, browser_of):
    browser = browser_of(team.lead)
    path = f"/api/projects/{team.project.id}"
    assert code_of(browser.delete(f"{path}/members/{10**30}")) == (404, "not_found")
    assert len(browser.get(f"{path}/events?before={10**30}").json()) == 4


def test_every_label_of_a_project_has_its_own_audit_event(team):
    label = Label.objects.get()
    event = Event.objects.get(action="label_added")
    assert event.subject == f"label {label.id}"
    assert event.data == {"name": "liver", "color": "#aa3311", "value": 1}
