"""Tasks through the front door: what the page starts from, is told, and is refused."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from delineate.annotation.drafts import DraftAction, DraftChanges, Prompts
from delineate.annotation.models import Task
from delineate.jobs import JobState
from delineate.projects.models import Role
from delineate.studies.models import Encoding
from mlworker.contract.messages import Point
from tests.delineate import factories
from tests.delineate.annotation.conftest import MODEL, Desk, runs

JSON = "application/json"
DOT = DraftChanges(drawn=runs((1, 1)))


@pytest.fixture
def annotator(desk: Desk) -> Client:
    """The annotator's browser."""
    return factories.browser_of(desk.annotator)


@pytest.fixture
def reviewer(desk: Desk) -> Client:
    """The reviewer's browser."""
    return factories.browser_of(desk.reviewer)


def code_of(response: Any) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


def accept(client: Client, desk: Desk, *, version: int, index: int = 0, **changes: Any) -> Any:
    """Ask for a draft to be frozen."""
    body = {
        "slice_id": str(desk.slice_id(index)),
        "label_id": str(desk.label.id),
        "version": version,
        "active_seconds": 3.5,
    } | changes
    return client.post(f"/api/tasks/{desk.task.id}/revisions", body, content_type=JSON)


def move(client: Client, desk: Desk, name: str, **body: str) -> Any:
    """Press one of the task's buttons."""
    return client.post(f"/api/tasks/{desk.task.id}/{name}", body, content_type=JSON)


def place_of(desk: Desk, index: int = 0) -> str:
    """A slice and label, as addresses have them."""
    return f"{desk.slice_id(index)}/{desk.label.id}"


def test_a_task_tells_all_that_the_workspace_starts_from(desk: Desk, annotator: Client) -> None:
    factories.new_model(MODEL)
    slices = list(desk.task.series.slices.order_by("index"))
    Encoding.objects.create(
        slice=slices[1], model_digest=MODEL, embedding_key="e", priority=0, state=JobState.DONE
    )
    desk.apply(DOT, base=0)
    told = annotator.get(f"/api/tasks/{desk.task.id}").json()

    assert (told["project_name"], told["state"]) == ("Livers", "in_progress")
    assert (told["actions"], told["moves"]) == (["view", "annotate"], ["submit"])
    assert [label["name"] for label in told["labels"]] == ["liver", "spleen"]
    assert told["model"]["digest"] == MODEL
    series = told["series"]
    assert (series["rows"], series["columns"], series["subject"]) == (8, 10, "S-AAAAAAAAAAAA")
    assert [(each["id"], each["index"]) for each in series["slices"]] == [
        (str(slice_.id), slice_.index) for slice_ in slices
    ]
    assert [each["prepared"] for each in series["slices"]] == [False, True, False]
    (draft,) = told["drafts"]
    assert (draft["slice_id"], draft["version"], draft["accepted_version"]) == (
        str(slices[0].id),
        1,
        0,
    )
    assert draft["state"]["drawn"] == runs((1, 1)).model_dump(mode="json")
    assert (told["reviews"], told["revisions"]) == ([], [])


def test_a_project_without_a_model_has_tasks_all_the_same(desk: Desk, annotator: Client) -> None:
    told = annotator.get(f"/api/tasks/{desk.task.id}").json()

    assert told["model"] is None
    assert not any(each["prepared"] for each in told["series"]["slices"])


def test_a_journal_tells_what_was_assigned_and_no_more(desk: Desk, annotator: Client) -> None:
    prompts = Prompts(points=(Point(x=1, y=1, positive=True),))
    proposal = desk.proposal(runs((3, 3)))
    desk.apply(DraftChanges(prompts=prompts, proposal=proposal), base=0, action=DraftAction.PROMPT)
    desk.apply(DOT, base=1)
    desk.apply(DraftChanges(drawn=None), base=2, action=DraftAction.UNDO)
    desk.apply(DOT, base=0, index=1)

    address = f"/api/tasks/{desk.task.id}/drafts/{place_of(desk)}/journal"
    journal = annotator.get(address).json()

    assert [(each["version"], each["action"]) for each in journal] == [
        (1, "prompt"),
        (2, "draw"),
        (3, "undo"),
    ]
    assert set(journal[0]["changes"]) == {"prompts", "proposal"}
    assert journal[0]["changes"]["proposal"]["seal"] == proposal.seal
    assert journal[1]["changes"] == {"drawn": runs((1, 1)).model_dump(mode="json")}
    assert journal[2]["changes"] == {"drawn": None}


def test_a_mask_is_accepted_once_and_its_history_is_told(desk: Desk, annotator: Client) -> None:
    desk.apply(DOT, base=0)
    first = accept(annotator, desk, version=1)
    again = accept(annotator, desk, version=1)
    desk.apply(DraftChanges(drawn=runs((2, 2))), base=1)
    second = accept(annotator, desk, version=2)

    assert (first.status_code, again.status_code, second.status_code) == (201, 201, 201)
    assert first.json() == again.json()
    assert first.json()["mask"] == runs((1, 1)).model_dump(mode="json")
    assert (first.json()["by"], first.json()["hand_drawn_share"]) == (desk.annotator.username, 1.0)
    history = annotator.get(f"/api/tasks/{desk.task.id}/revisions/{place_of(desk)}").json()
    assert history == [first.json(), second.json()]
    assert annotator.get(f"/api/tasks/{desk.task.id}").json()["revisions"] == [second.json()]


def test_what_is_not_on_screen_is_not_accepted(desk: Desk, annotator: Client) -> None:
    desk.apply(DOT, base=0)
    stale = accept(annotator, desk, version=0)

    assert code_of(stale) == (409, "stale_base")
    assert stale.json()["error"]["data"]["version"] == 1


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"slice_id": str(uuid4())}, (404, "slice_gone")),
        ({"label_id": str(uuid4())}, (404, "label_gone")),
        ({"version": -1}, (422, "invalid")),
        ({"active_seconds": -1}, (422, "invalid")),
        ({"active_seconds": "NaN"}, (422, "invalid")),
        ({"mask": runs().model_dump(mode="json")}, (422, "invalid")),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else value[1],
)
def test_a_mask_that_cannot_be_accepted_is_refused_by_name(
    desk: Desk, annotator: Client, changes: dict[str, Any], refusal: tuple[int, str]
) -> None:
    assert code_of(accept(annotator, desk, **({"version": 0} | changes))) == refusal
    assert not desk.task.revisions.exists()


def test_a_task_goes_to_its_review_and_back_and_through(
    desk: Desk, annotator: Client, reviewer: Client
) -> None:
    address = f"/api/tasks/{desk.task.id}"
    assert code_of(move(annotator, desk, "submit")) == (409, "illegal_move")
    desk.apply(DOT, base=0)
    assert code_of(move(annotator, desk, "submit")) == (409, "nothing_accepted")
    accept(annotator, desk, version=1)
    desk.apply(DraftChanges(drawn=runs((2, 2))), base=1)
    held = move(annotator, desk, "submit")
    assert code_of(held) == (409, "unaccepted_changes")
    assert held.json()["error"]["data"] == {"slices": [1]}
    assert "slice 1 (liver)" in held.json()["error"]["message"]

    accept(annotator, desk, version=2)
    submitted = move(annotator, desk, "submit").json()
    assert (submitted["state"], submitted["submitted_by"]) == (
        "submitted",
        desk.annotator.username,
    )
    assert annotator.get(address).json()["moves"] == []
    assert reviewer.get(address).json()["moves"] == ["accept", "return"]
    assert code_of(accept(annotator, desk, version=2)) == (409, "task_closed")

    assert code_of(move(reviewer, desk, "return", comment=" ")) == (422, "comment_missing")
    returned = move(reviewer, desk, "return", comment="Too small.").json()
    assert (returned["state"], returned["last_comment"]) == ("returned", "Too small.")
    assert move(annotator, desk, "submit").json()["state"] == "submitted"
    assert move(reviewer, desk, "accept").json()["state"] == "accepted"
    reviews = annotator.get(address).json()["reviews"]
    assert [(each["decision"], each["comment"], each["reviewer"]) for each in reviews] == [
        ("returned", "Too small.", desk.reviewer.username),
        ("accepted", "", desk.reviewer.username),
    ]
    assert move(reviewer, desk, "reopen").json()["state"] == "in_progress"


@pytest.mark.parametrize("name", ["accept", "return", "reopen"])
def test_an_annotator_does_not_review(desk: Desk, annotator: Client, name: str) -> None:
    assert code_of(move(annotator, desk, name, comment="Well done.")) == (403, "not_allowed")


def test_a_series_has_one_task_however_often_it_is_opened(desk: Desk, annotator: Client) -> None:
    series = factories.new_series(desk.task.series.study)
    address = f"/api/series/{series.id}/task"
    opened, again = annotator.post(address).json(), annotator.post(address).json()

    assert opened == again
    assert (opened["state"], opened["series_id"], opened["slices"]) == ("open", str(series.id), 3)
    assert Task.objects.filter(series=series).count() == 1


def test_tasks_and_progress_are_told_in_numbers(desk: Desk, annotator: Client) -> None:
    project = desk.label.project
    factories.new_model(MODEL)
    for slice_ in desk.task.series.slices.filter(index__lt=2):
        Encoding.objects.create(
            slice=slice_, model_digest=MODEL, embedding_key="e", priority=0, state=JobState.DONE
        )
    for version, index in ((0, 0), (0, 1)):
        accept(annotator, desk, version=version, index=index)
    desk.apply(DOT, base=0)
    accept(annotator, desk, version=1)
    factories.new_task(factories.new_series(factories.new_study(project)))

    listed = annotator.get(f"/api/projects/{project.id}/tasks").json()
    # The second mask of the same slice and label takes the place of the first.
    assert [
        (each["state"], each["study_number"], each["slices"], each["prepared"]) for each in listed
    ] == [("in_progress", 1, 3, 2), ("accepted", 2, 3, 0)]
    assert [each["accepted_masks"] for each in listed] == [2, 0]
    assert annotator.get(f"/api/projects/{project.id}/progress").json() == {
        "studies": 2,
        "slices": 6,
        "prepared_slices": 2,
        "tasks": {"open": 0, "in_progress": 1, "submitted": 0, "returned": 0, "accepted": 1},
        "accepted_masks": 2,
    }


def test_another_projects_slices_are_no_part_of_a_task(desk: Desk, annotator: Client) -> None:
    elsewhere = factories.new_project("heart")
    series = factories.new_series(factories.new_study(elsewhere))
    foreign = str(series.slices.get(index=0).id)

    assert code_of(accept(annotator, desk, version=0, slice_id=foreign)) == (404, "slice_gone")
    assert code_of(annotator.post(f"/api/series/{series.id}/task")) == (404, "not_found")
    stranger = factories.browser_of(factories.new_member(elsewhere, Role.LEAD))
    assert code_of(stranger.get(f"/api/tasks/{desk.task.id}")) == (404, "not_found")
