"""Signing in and out, through the front door."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from delineate.accounts.guessing import FAILURES_ALLOWED
from delineate.accounts.models import FailedSignIn, User
from delineate.accounts.services import create_user
from delineate.audit.models import Event

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def anna():
    return create_user("anna", password=PASSWORD, full_name="Anna Weber")


@pytest.fixture
def browser():
    """A client that, like a browser, must send the CSRF token."""
    client = Client(enforce_csrf_checks=True)
    client.get("/api/session")
    return client


def post(client, path, body, *, method="post"):
    """Send JSON with the CSRF token of the client's cookie."""
    return getattr(client, method)(
        path,
        body,
        content_type="application/json",
        headers={"X-CSRFToken": client.cookies["csrftoken"].value},
    )


def sign_in(client, *, username="anna", password=PASSWORD):
    return post(client, "/api/session", {"username": username, "password": password})


def test_a_page_starts_without_a_session_and_gets_its_token():
    client = Client()
    response = client.get("/api/session")
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "not_signed_in"
    assert "csrftoken" in response.cookies


def test_sign_in_and_out_again(anna, browser, settings):
    response = sign_in(browser)
    assert response.status_code == 200
    me = {"username": "anna", "display_name": "Anna Weber", "is_superuser": False}
    assert response.json() == me
    assert response.cookies[settings.SESSION_COOKIE_NAME]["httponly"]
    assert browser.get("/api/session").json() == me
    assert post(browser, "/api/session", None, method="delete").status_code == 204
    assert browser.get("/api/session").status_code == 401
    acts = Event.objects.filter(project_id=None).values_list("actor", "action", "subject")
    assert list(acts) == [
        ("system", "user_created", "user anna"),
        ("anna", "signed_in", "user anna"),
        ("anna", "signed_out", "user anna"),
    ]


def test_wrong_password_and_unknown_user_are_told_the_same(anna, browser):
    wrong = sign_in(browser, password="not it")
    unknown = sign_in(browser, username="nobody", password="not it")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert wrong.json()["error"]["code"] == "wrong_credentials"
    failures = Event.objects.filter(action="sign_in_failed").values_list("subject", flat=True)
    assert list(failures) == ["user anna", "an unknown user"]


def test_an_account_that_was_closed_cannot_sign_in(anna, browser):
    User.objects.update(is_active=False)
    assert sign_in(browser).status_code == 401


def test_guessing_is_stopped_and_forgotten_after_a_while(anna, browser):
    for _ in range(FAILURES_ALLOWED):
        assert sign_in(browser, password="not it").status_code == 401
    refused = sign_in(browser)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "too_many"
    # Another person, and the same person elsewhere, are not locked out by it.
    create_user("ben", password=PASSWORD)
    assert sign_in(browser, username="ben").status_code == 200
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    elsewhere.get("/api/session")
    assert sign_in(elsewhere).status_code == 200
    FailedSignIn.objects.update(at=timezone.now() - timedelta(minutes=6))
    assert sign_in(browser).status_code == 200


def test_signing_in_without_a_csrf_token_is_refused(anna):
    client = Client(enforce_csrf_checks=True)
    response = client.post(
        "/api/session",
        {"username": "anna", "password": PASSWORD},
        content_type="application/json",
    )
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "csrf_failed"


def test_changing_something_without_a_csrf_token_is_refused(anna, browser):
    sign_in(browser)
    response = browser.post("/api/projects", {"name": "x"}, content_type="application/json")
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "csrf_failed"


def test_a_field_nobody_asked_for_is_refused_by_name(anna, browser):
    response = post(
        browser, "/api/session", {"username": "anna", "password": PASSWORD, "is_superuser": True}
    )
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "invalid"
    assert [each["field"] for each in error["data"]["fields"]] == ["body.credentials.is_superuser"]


def test_a_new_password_ends_other_sessions_and_keeps_this_one(anna, browser):
    other = Client()
    other.get("/api/session")
    sign_in(other)
    sign_in(browser)
    change = {"current": PASSWORD, "new": "a quite different one"}
    assert post(browser, "/api/session/password", change).status_code == 204
    assert browser.get("/api/session").status_code == 200
    assert other.get("/api/session").status_code == 401
    assert sign_in(other, password="a quite different one").status_code == 200
    assert Event.objects.filter(action="password_changed", actor="anna").count() == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"current": "not it", "new": "a quite different one"}, "wrong_password"),
        ({"current": PASSWORD, "new": "short"}, "password_weak"),
        ({"current": PASSWORD, "new": "1234567890"}, "password_weak"),
    ],
)
def test_a_password_is_changed_only_to_a_good_one_by_its_owner(anna, browser, change, code):
    sign_in(browser)
    response = post(browser, "/api/session/password", change)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == code
    anna.refresh_from_db()
    assert anna.check_password(PASSWORD)


@pytest.mark.parametrize("username", ["a\x00b", "a" * 151])
def test_a_user_name_that_cannot_be_is_refused_before_the_database(browser, username):
    response = sign_in(browser, username=username)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid"
