"""API tokens, from making one to revoking it, through the front door."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from delineate.accounts.guessing import FAILURES_ALLOWED
from delineate.accounts.models import ApiToken, FailedSignIn, User
from delineate.accounts.services import create_user, set_password
from delineate.accounts.tokens import TOKENS_AT_MOST, make_token, revoke_token, tokens_of
from delineate.audit.models import Event
from delineate.errors import Conflict, Invalid, NotFound
from tests.delineate.factories import browser_of, new_project, new_user

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def anna():
    return create_user("anna", password=PASSWORD)


@pytest.fixture
def token(anna):
    return make_token(anna, name="a script", by=anna)


def basic(username: str, password: str) -> str:
    """A Basic header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def get(authorization: str, path: str = "/api/session", client: Client | None = None):
    """What a program is answered."""
    return (client or Client()).get(path, headers={"Authorization": authorization})


def code_of(response) -> str:
    return str(response.json()["error"]["code"])


class TestMaking:
    def test_the_secret_is_told_once_and_only_its_digest_is_kept(self, anna):
        page = browser_of(anna)
        project = uuid4()
        body = {"name": " gateway ", "days": 7, "project_id": str(project), "read_only": True}
        made = page.post("/api/session/tokens", body, content_type="application/json")
        assert made.status_code == 201
        secret = made.json()["secret"]
        assert secret.startswith("dlt_")
        assert len(secret) >= 4 + 43  # 256 bits in base64
        token = ApiToken.objects.get()
        assert token.digest == hashlib.sha256(secret.encode()).hexdigest()
        assert token.expires_at == token.created_at + timedelta(days=7)
        listed = page.get("/api/session/tokens")
        assert listed.json() == [made.json()["token"]]
        assert listed.json()[0] | {"created_at": "", "expires_at": ""} == {
            "id": str(token.id),
            "name": "gateway",
            "project_id": str(project),
            "read_only": True,
            "created_at": "",
            "expires_at": "",
            "last_used_at": None,
        }
        assert secret not in listed.content.decode()
        event = Event.objects.get(action="token_made")
        assert (event.actor, event.subject) == ("anna", f"token {token.id}")
        assert event.data == {
            "user": "anna",
            "name": "gateway",
            "project": str(project),
            "read_only": True,
            "expires_at": token.expires_at.isoformat(),
        }

    def test_it_is_good_for_90_days_unless_something_else_is_said(self, anna):
        page = browser_of(anna)
        page.post("/api/session/tokens", {"name": "a"}, content_type="application/json")
        forever = {"name": "b", "days": None}
        page.post("/api/session/tokens", forever, content_type="application/json")
        first, second = ApiToken.objects.order_by("name")
        assert first.expires_at == first.created_at + timedelta(days=90)
        assert second.expires_at is None

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"name": ""}, "token_name_invalid"),
            ({"name": "   "}, "token_name_invalid"),
            ({"name": "x" * 81}, "token_name_invalid"),
            ({"name": "a\x00b"}, "token_name_invalid"),
            ({"days": 0}, "token_days_invalid"),
            ({"days": -1}, "token_days_invalid"),
            ({"days": 10**12}, "token_days_invalid"),
            ({"project_id": "../../etc"}, "invalid"),
            ({"scopes": ["all"]}, "invalid"),
        ],
    )
    def test_what_cannot_be_is_refused(self, anna, change, code):
        body = {"name": "a script"} | change
        response = browser_of(anna).post(
            "/api/session/tokens", body, content_type="application/json"
        )
        assert response.status_code == 422
        assert code_of(response) == code
        assert not ApiToken.objects.exists()

    def test_there_is_an_end_to_forgotten_ones(self, anna):
        first = make_token(anna, name="0", by=anna).token
        for number in range(1, TOKENS_AT_MOST):
            make_token(anna, name=str(number), by=anna)
        with pytest.raises(Conflict) as refusal:
            make_token(anna, name="one more", by=anna)
        assert refusal.value.code == "too_many_tokens"
        revoke_token(first.id, of=anna, by=anna)
        make_token(anna, name="one more", by=anna)

    def test_a_page_needs_its_csrf_token_for_it(self, anna):
        page = Client(enforce_csrf_checks=True)
        page.force_login(anna)
        body = {"name": "a script"}
        response = page.post("/api/session/tokens", body, content_type="application/json")
        assert code_of(response) == "csrf_failed"

    def test_the_database_refuses_one_that_expires_before_it_is_made(self, token):
        with pytest.raises(IntegrityError, match="expires_after_made"), transaction.atomic():
            ApiToken.objects.update(expires_at=timezone.now() - timedelta(days=1))


class TestUsing:
    def test_it_acts_as_its_person(self, token):
        response = get(f"Bearer {token.secret}")
        assert response.status_code == 200
        assert response.json()["username"] == "anna"
        assert "sessionid" not in "".join(response.cookies)

    @pytest.mark.parametrize("username", ["anna", "", "anybody", "ünïcode", "ben:"])
    def test_as_the_password_of_any_user_name(self, token, username):
        if username == "ben:":  # a user name has no colon: what follows would be the password
            assert code_of(get(basic(username, token.secret))) == "token_invalid"
        else:
            assert get(basic(username, token.secret)).json()["username"] == "anna"

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
    def test_schemes_are_written_as_one_likes(self, token, scheme):
        assert get(f"{scheme} {token.secret}").status_code == 200

    def test_it_changes_things_without_a_csrf_token_and_the_trail_says_so(self, token):
        program = Client(enforce_csrf_checks=True)
        for header in (f"Bearer {token.secret}", basic("anna", token.secret)):
            response = program.post(
                "/api/projects",
                {"name": "Livers"},
                content_type="application/json",
                headers={"Authorization": header},
            )
            assert response.status_code == 200
        made = Event.objects.filter(action="project_created")
        assert [event.actor for event in made] == ["anna", "anna"]
        assert {event.data["by_token"] for event in made} == {str(token.token.id)}

    def test_what_a_browser_sends_with_basic_needs_its_csrf_token(self, token):
        # It adds a Basic header that was once typed into its window to requests of other sites.
        browser = Client(enforce_csrf_checks=True)
        for header, code in (
            (basic("anna", token.secret), "csrf_failed"),
            (f"Bearer {token.secret}", None),
        ):
            response = browser.post(
                "/api/projects",
                {"name": "Livers"},
                content_type="application/json",
                headers={"Authorization": header, "Origin": "http://evil.example"},
            )
            assert (code_of(response) if code else response.status_code) == (code or 200)

    def test_the_token_decides_where_a_session_comes_with_it(self, token):
        page = browser_of(create_user("ben", password=PASSWORD))
        assert page.get("/api/session").json()["username"] == "ben"
        assert get(f"Bearer {token.secret}", client=page).json()["username"] == "anna"
        # … also where it is wrong: no falling back to somebody else.
        assert code_of(get("Bearer dlt_wrong", client=page)) == "token_invalid"
        assert page.get("/api/session").json()["username"] == "ben"

    def test_a_session_needs_its_csrf_token_as_ever(self, anna, token):
        page = Client(enforce_csrf_checks=True)
        page.force_login(anna)
        response = page.post("/api/projects", {"name": "x"}, content_type="application/json")
        assert code_of(response) == "csrf_failed"

    def test_files_go_up_by_it(self, anna, token):
        project = new_project(lead=anna)
        response = Client(enforce_csrf_checks=True).post(
            f"/api/projects/{project.id}/uploads",
            {"files": SimpleUploadedFile("a.dcm", b"not dicom")},
            headers={"Authorization": f"Bearer {token.secret}"},
        )
        assert response.status_code == 201
        assert response.json()["blob_count"] == 1

    def test_use_is_noted_to_the_minute_and_the_first_one_audited(self, token):
        get(f"Bearer {token.secret}")
        first = ApiToken.objects.get().last_used_at
        assert first is not None
        get(f"Bearer {token.secret}")
        assert ApiToken.objects.get().last_used_at == first
        earlier = first - timedelta(minutes=2)
        ApiToken.objects.update(last_used_at=earlier)
        get(f"Bearer {token.secret}")
        last = ApiToken.objects.get().last_used_at
        assert last is not None
        assert last > earlier
        event = Event.objects.get(action="token_first_used")
        assert (event.actor, event.subject) == ("anna", f"token {token.token.id}")
        assert event.data["address"] == "127.0.0.1"

    def test_elsewhere_the_header_means_nothing(self, token):
        assert get("Bearer dlt_wrong", "/").status_code != 401

    def test_a_proxys_own_scheme_is_none_of_ours(self):
        assert code_of(get("Negotiate abc")) == "not_signed_in"


class TestRefusing:
    @pytest.mark.parametrize(
        "header",
        [
            "Bearer",
            "Bearer ",
            "Bearer dlt_",
            "Bearer dlt_" + "x" * 10_000,
            "Bearer \xff\x00",
            "Basic",
            "Basic not base64!",
            "Basic " + base64.b64encode(b"\xff\xfe").decode(),
            "Basic " + base64.b64encode(b"no colon").decode(),
            basic("anna", ""),
            basic("anna", PASSWORD),  # a real one
        ],
    )
    def test_what_is_no_token_is_told_by_a_code(self, anna, token, header):
        response = get(header)
        assert response.status_code == 401
        assert code_of(response) == "token_invalid"
        assert Event.objects.get(action="token_refused").subject == "an unknown token"
        assert PASSWORD not in str(list(Event.objects.values()))

    def test_a_revoked_one_opens_nothing_at_once(self, anna, token):
        page = browser_of(anna)
        path = f"/api/session/tokens/{token.token.id}"
        assert get(f"Bearer {token.secret}").status_code == 200
        assert page.delete(path).status_code == 204
        assert code_of(get(f"Bearer {token.secret}")) == "token_invalid"
        assert page.get("/api/session/tokens").json() == []
        event = Event.objects.get(action="token_revoked")
        assert (event.actor, event.subject) == ("anna", f"token {token.token.id}")
        assert event.data == {"user": "anna", "name": "a script"}
        assert Event.objects.get(action="token_refused").subject == f"token {token.token.id}"
        assert page.delete(path).status_code == 404

    def test_nobody_revokes_anothers(self, token):
        other = browser_of(new_user())
        assert other.delete(f"/api/session/tokens/{token.token.id}").status_code == 404
        with pytest.raises(NotFound):
            revoke_token(token.token.id, of=new_user(), by=None)
        assert get(f"Bearer {token.secret}").status_code == 200

    def test_an_expired_one_says_so(self, token):
        ago = timezone.now() - timedelta(days=2)
        ApiToken.objects.update(created_at=ago, expires_at=ago + timedelta(days=1))
        response = get(f"Bearer {token.secret}")
        assert response.status_code == 401
        assert code_of(response) == "token_expired"

    def test_the_token_of_a_closed_account_opens_nothing(self, token):
        User.objects.update(is_active=False)
        assert code_of(get(f"Bearer {token.secret}")) == "token_invalid"

    def test_a_new_password_leaves_tokens_as_they_are(self, anna, token):
        set_password(anna, new="a quite different one")
        assert get(f"Bearer {token.secret}").status_code == 200
        assert [each.name for each in tokens_of(anna)] == ["a script"]

    def test_guessing_is_stopped_and_holds_up_no_good_token(self, token):
        for _ in range(FAILURES_ALLOWED):
            assert get("Bearer dlt_guess").status_code == 401
        refused = get("Bearer dlt_guess")
        assert refused.status_code == 429
        assert code_of(refused) == "too_many"
        assert Event.objects.filter(action="token_refused").count() == FAILURES_ALLOWED
        assert get(f"Bearer {token.secret}").status_code == 200
        # … nor signing in, nor others elsewhere.
        page = Client()
        signed_in = page.post(
            "/api/session",
            {"username": "anna", "password": PASSWORD},
            content_type="application/json",
        )
        assert signed_in.status_code == 200
        elsewhere = Client(REMOTE_ADDR="192.0.2.7")
        assert get("Bearer dlt_guess", client=elsewhere).status_code == 401
        FailedSignIn.objects.update(at=timezone.now() - timedelta(minutes=6))
        assert get("Bearer dlt_guess").status_code == 401


class TestChallenge:
    PATH = f"/dicomweb/{uuid4()}/studies/1.2/series/1.3/metadata"

    def test_dicom_clients_are_told_how_to_come(self, anna):
        for response in (Client().get(self.PATH), get("Bearer dlt_wrong", self.PATH)):
            assert response.status_code == 401
            assert response["WWW-Authenticate"] == (
                'Basic realm="Delineate", charset="UTF-8", Bearer realm="Delineate"'
            )

    def test_a_page_whose_session_ended_opens_no_window_of_the_browsers(self, anna):
        page = browser_of(anna)
        page.logout()
        page.get("/api/session")  # the page asks who it is, and keeps a cookie
        response = page.get(self.PATH)
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == 'Bearer realm="Delineate"'

    def test_the_api_asks_for_a_token_by_bearer(self):
        assert Client().get("/api/projects")["WWW-Authenticate"] == 'Bearer realm="Delineate"'

    def test_frames_come_by_token(self, token):
        # Not 401: the token is good, and the project is not anna's.
        assert get(basic("x", token.secret), self.PATH).status_code == 404


@pytest.mark.parametrize("has_token", [True, False])
def test_storing_over_dicomweb_needs_the_token_or_a_csrf_token(anna, token, has_token):
    client = Client(enforce_csrf_checks=True)
    client.force_login(anna)
    response = client.post(
        f"/dicomweb/{new_project(lead=anna).id}/studies",
        b"nothing",
        content_type="text/plain",
        headers={"Authorization": f"Bearer {token.secret}"} if has_token else {},
    )
    # By token it comes as far as being told what is wrong with it.
    assert (response.status_code == 403) is not has_token
    assert response.status_code != 401


def test_making_one_with_another_is_not_possible(token):
    response = Client().post(
        "/api/session/tokens",
        {"name": "another"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token.secret}"},
    )
    assert response.status_code == 403
    assert code_of(response) == "session_needed"
    assert ApiToken.objects.count() == 1


@pytest.mark.parametrize("name", ["a script", "x" * 80, "Größe 3"])
def test_a_name_is_ones_own_words(anna, name):
    assert make_token(anna, name=name, by=anna).token.name == name


@pytest.mark.parametrize("days", [0, 3651])
def test_the_service_refuses_days_as_well(anna, days):
    with pytest.raises(Invalid) as refusal:
        make_token(anna, name="x", days=days, by=anna)
    assert refusal.value.code == "token_days_invalid"
