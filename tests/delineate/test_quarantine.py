"""Every way to the pixels or the header of a held series, tried by everybody.

The routes are read from the server itself: a new one that names a series, a task or what belongs to
one is tried here without being listed.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from delineate import storage
from delineate.annotation import jobs as annotation
from delineate.annotation.models import Task
from delineate.annotation.selectors import accepted_masks
from delineate.annotation.transitions import State
from delineate.errors import Conflict
from delineate.exports import selectors as exports
from delineate.exports.models import Format
from delineate.exports.services import request_export
from delineate.projects.models import Project, Role
from delineate.projects.permissions import ALLOWED, Action
from delineate.studies import encoding
from delineate.studies.models import Encoding, Series
from delineate.studies.selectors import InQuarantine
from mlworker.contract import broker
from tests.delineate.factories import accept_mask, hold, label_of, new_model
from tests.delineate.test_authorization import (
    OF_OBJECTS,
    Route,
    World,
    ask,
    code_of,
    new_world,
)

OF_A_SERIES = [
    route
    for route in OF_OBJECTS
    if {"series_id", "task_id", "series_uid"}.intersection(route.names)
]
# Searches find what whoever asks is shown.
SEARCHES = [route for route in OF_A_SERIES if route.path.endswith("/instances")]
READS = [route for route in OF_OBJECTS if route.method == "GET"]
KEPT_OUT = [role for role in Role if Action.RELEASE not in ALLOWED[role]]
LETTING_GO = ("/release", "/black-out")


@pytest.fixture
def world(db) -> World:
    """A project with one of everything, its series held."""
    made = new_world("Livers")
    series = Series.objects.get()
    accept_mask(
        series.task,
        np.ones((series.rows, series.columns), dtype=bool),
        index=0,
        label=label_of(series.study.project, "liver"),
    )
    hold(series)
    return made


def test_there_are_routes_and_roles_to_try():
    assert len(OF_A_SERIES) > 12
    assert KEPT_OUT == [Role.REVIEWER, Role.ANNOTATOR]


@pytest.mark.parametrize("route", SEARCHES, ids=str)
def test_nobody_else_finds_it(route, world):
    for role in KEPT_OUT:
        response = ask(route, objects=world.objects, user=world.people[role])
        assert (response.status_code, response.content) in [(204, b""), (200, b"[]")]


@pytest.mark.parametrize(
    "route", [route for route in OF_A_SERIES if route not in SEARCHES], ids=str
)
def test_nobody_else_opens_it(route, world):
    for role in KEPT_OUT:
        response = ask(route, objects=world.objects, user=world.people[role])
        assert response.status_code == 403
        assert code_of(response) == "in_quarantine"


def test_nothing_that_can_be_read_tells_of_its_images(world):
    series = Series.objects.get()
    secrets = [str(series.task.id).encode()]
    for slice_ in series.slices.select_related("instance"):
        pixels = storage.get(slice_.pixels_key)[-2 * series.rows * series.columns :]
        secrets += [str(slice_.id).encode(), slice_.instance.sop_instance_uid.encode(), pixels]
    for role in KEPT_OUT:
        for route in READS:
            response = ask(route, objects=world.objects, user=world.people[role])
            assert not [each for each in secrets if each in response.content], route


@pytest.mark.parametrize("route", [each for each in OF_A_SERIES if each.method == "GET"], ids=str)
def test_a_lead_looks_at_it(route, world):
    response = ask(route, objects=world.objects, user=world.people[Role.LEAD])
    assert response.status_code == 200
    assert "max-age" not in response.get("Cache-Control", "")


@pytest.mark.parametrize(
    "route",
    [each for each in OF_A_SERIES if each.method != "GET" and not each.path.endswith(LETTING_GO)],
    ids=str,
)
def test_a_lead_does_not_work_on_it_either(route, world):
    response = ask(route, objects=world.objects, user=world.people[Role.LEAD])
    # What the request lacks may be said first.
    assert code_of(response) in ("in_quarantine", "comment_missing")
    assert Task.objects.get().state == State.ACCEPTED


def test_its_line_says_that_it_is_held(world):
    for role in Role:
        (study,) = _json(world, "/api/projects/{project_id}/studies", role)
        assert [series["quarantine"] for series in study["series"]] == ["held"]
        assert _json(world, "/api/projects/{project_id}/tasks", role) == []
        progress = _json(world, "/api/projects/{project_id}/progress", role)
        assert (progress["slices"], progress["accepted_masks"]) == (0, 0)


def test_it_is_in_no_export(world):
    project = Project.objects.get(id=world.objects["project_id"])
    for reviewed_only in (True, False):
        assert not exports.tasks_with_masks(project, reviewed_only=reviewed_only).exists()
        assert not list(accepted_masks(project, reviewed_only=reviewed_only))
        with pytest.raises(Conflict) as refusal:
            request_export(
                project,
                format=Format.NIFTI,
                reviewed_only=reviewed_only,
                by=world.people[Role.LEAD],
            )
        assert refusal.value.code == "nothing_to_export"
    Series.objects.update(quarantine="none", held_because="")
    assert exports.tasks_with_masks(project, reviewed_only=True).exists()


def test_no_task_is_opened_for_it(world):
    Task.objects.all().delete()
    assert annotation.open_missing() == 0
    with pytest.raises(InQuarantine):
        annotation.open_for(Series.objects.get())
    Series.objects.update(quarantine="none", held_because="")
    assert annotation.open_missing() == 1


def test_no_worker_sees_it(world):
    model = new_model()
    slices = list(Series.objects.get().slices.values_list("id", flat=True))
    encoding.request(slices, model_digest=model.digest, priority=broker.PRIORITY_NOW, anew=True)
    encoding.request_missing()
    assert not Encoding.objects.exists()

    Series.objects.update(quarantine="none", held_because="")
    encoding.request(slices, model_digest=model.digest, priority=broker.PRIORITY_LATER)
    Encoding.objects.update(state="pending")
    hold(Series.objects.get())
    encoding.dispatch()
    assert set(Encoding.objects.values_list("state", flat=True)) == {"pending"}


def _json(world: World, path: str, role: Role) -> Any:
    response = ask(Route("GET", path), objects=world.objects, user=world.people[role])
    assert response.status_code == 200
    return json.loads(response.content)
