"""Who may export, and what one is told."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.annotation.transitions import State
from delineate.exports.build import build
from delineate.exports.models import Export
from delineate.projects.models import Role
from tests.delineate import factories

pytestmark = pytest.mark.django_db

JSON = "application/json"
MASK = np.eye(8, 10) > 0


@pytest.fixture
def project():
    """A project with one reviewed mask."""
    project = factories.new_project()
    task = factories.new_task(factories.new_series(factories.new_study(project)))
    factories.accept_mask(task, MASK, index=0, label=factories.label_of(project, "liver"))
    return project


def code_of(response):
    """Status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


def test_an_export_is_asked_for_followed_and_fetched(project):
    browser = factories.browser_of(factories.lead_of(project))
    path = f"/api/projects/{project.id}/exports"
    asked = browser.post(path, {"format": "png", "reviewed_only": True}, content_type=JSON)
    assert asked.status_code == 201
    new = asked.json()
    assert (new["state"], new["series_done"], new["series_total"]) == ("pending", 0, 1)
    file = f"/api/exports/{new['id']}/file"
    assert code_of(browser.get(file)) == (409, "not_ready")
    build(Export.objects.get().id)
    done = browser.get(f"/api/exports/{new['id']}").json()
    assert (done["state"], done["series_done"], done["error_code"]) == ("done", 1, "")
    assert browser.get(path).json() == [done]
    fetched = browser.get(file)
    assert fetched["Content-Type"] == "application/zip"
    assert fetched["Content-Disposition"] == f'attachment; filename="{new["id"]}-png.zip"'
    assert len(fetched.getvalue()) == done["size_bytes"] == int(fetched["Content-Length"])


def test_without_accepted_masks_there_is_nothing_to_export():
    project = factories.new_project()
    series = factories.new_series(factories.new_study(project))
    task = factories.new_task(series, state=State.SUBMITTED)
    browser = factories.browser_of(factories.lead_of(project))
    path = f"/api/projects/{project.id}/exports"
    nothing = browser.post(path, {"format": "png", "reviewed_only": False}, content_type=JSON)
    assert code_of(nothing) == (409, "nothing_to_export")
    factories.accept_mask(task, MASK, index=0, label=factories.label_of(project, "liver"))
    unreviewed = browser.post(path, {"format": "png"}, content_type=JSON)
    assert code_of(unreviewed) == (409, "nothing_to_export")
    assert (
        browser.post(path, {"format": "png", "reviewed_only": False}, content_type=JSON).status_code
        == 201
    )


@pytest.mark.parametrize("body", [{"format": "tiff"}, {}, {"format": "png", "series": 1}])
def test_what_is_not_offered_is_refused(project, body):
    browser = factories.browser_of(factories.lead_of(project))
    response = browser.post(f"/api/projects/{project.id}/exports", body, content_type=JSON)
    assert code_of(response) == (422, "invalid")


@pytest.mark.parametrize("role", [Role.REVIEWER, Role.ANNOTATOR])
def test_only_leads_take_masks_out(project, role, export_of):
    export = export_of(project, "png").export
    browser = factories.browser_of(factories.new_member(project, role))
    path = f"/api/projects/{project.id}/exports"
    assert code_of(browser.post(path, {"format": "png"}, content_type=JSON)) == (403, "not_allowed")
    assert code_of(browser.get(f"/api/exports/{export.id}/file")) == (403, "not_allowed")
    assert browser.get(path).json()[0]["id"] == str(export.id)
    stranger = factories.browser_of(factories.new_user())
    assert code_of(stranger.get(f"/api/exports/{export.id}/file")) == (404, "not_found")


def test_a_refused_export_says_why_when_fetched(project):
    lead = factories.lead_of(project)
    export = Export.objects.create(
        project=project, by=lead, format="png", state="failed", error_message="Because."
    )
    refused = factories.browser_of(lead).get(f"/api/exports/{export.id}/file")
    assert code_of(refused) == (409, "not_ready")
    assert refused.json()["error"]["message"] == "Because."
