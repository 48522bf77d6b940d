"""Errors become answers in one shape, and what went wrong inside stays inside."""

from __future__ import annotations

import pytest
from django.test import Client, RequestFactory
from ninja import NinjaAPI
from ninja.testing import TestClient

from delineate.config.http import new_api, went_wrong
from delineate.errors import (
    Conflict,
    DelineateError,
    Invalid,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooMany,
    Unavailable,
)


@pytest.fixture
def api(monkeypatch) -> NinjaAPI:
    """An API like ours; ninja keeps a list of those it made, which must not grow."""
    monkeypatch.setenv("NINJA_SKIP_REGISTRY", "yes")
    return new_api()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("Gone."), 404),
        (NotSignedIn("Who?"), 401),
        (NotAllowed("No."), 403),
        (Invalid("Wrong.", code="wrong", field=1), 422),
        (Conflict("Late.", code="late"), 409),
        (TooMany("Slow."), 429),
        (Unavailable("Away.", code="worker_timeout"), 503),
        (DelineateError("Broken."), 500),
    ],
)
def test_each_error_has_its_status_code_sentence_and_data(api, error, status):
    @api.get("/it", auth=None)
    def it(request):
        raise error

    response = TestClient(api).get("/it")
    assert response.status_code == status
    assert response.json() == {
        "error": {"code": error.code, "message": str(error), "data": error.data}
    }


def test_an_unexpected_error_is_logged_and_told_without_details(api, caplog):
    @api.get("/it", auth=None)
    def it(request):
        raise ValueError("secret of a patient")

    response = TestClient(api).get("/it")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "secret" not in response.content.decode()
    assert "secret of a patient" in caplog.text


def test_a_request_of_the_wrong_shape_names_its_fields(api):
    @api.get("/it", auth=None)  # type: ignore[untyped-decorator]
    def it(request, number: int):
        return number

    response = TestClient(api).get("/it?number=many")
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "invalid"
    assert [field["field"] for field in error["data"]["fields"]] == ["query.number"]
    assert "query.number" in error["message"]


def test_a_request_larger_than_may_be_is_told_so(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    response = Client().post("/api/session", {"username": "anna"}, content_type="application/json")
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("path", ["/api/nothing", "/static/nothing.js", "/assets/nothing.js"])
def test_an_address_without_a_route_is_told_as_json(path):
    response = Client().get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_what_goes_wrong_outside_the_api_is_told_alike():
    response = went_wrong(RequestFactory().get("/"))
    assert response.status_code == 500
    assert b'"code": "internal"' in response.content


@pytest.mark.django_db  # an answer that is closed looks at the connection that others left
def test_the_documentation_page_loads_nothing_from_elsewhere():
    page = Client().get("/api/docs")
    assert page.status_code == 200
    html = page.content.decode()
    assert "https://" not in html
    assert "'unsafe-inline'" not in page["Content-Security-Policy"].split("style-src")[0]
    for script in ("swagger-ui-bundle.js", "swagger-ui-init.js", "swagger-ui.css"):
        assert f"/static/ninja/{script}" in html
        loaded = Client().get(f"/static/ninja/{script}")
        assert loaded.status_code == 200
        loaded.close()


def test_the_schema_names_every_answer():
    schema = Client().get("/api/openapi.json").json()
    assert schema["info"]["title"] == "Delineate"
    bare = [
        f"{method} {path}"
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        if method != "head"  # which has no content
        for status, response in operation["responses"].items()
        if int(status) == 200 and method != "head" and not response.get("content")
    ]
    assert bare == []
