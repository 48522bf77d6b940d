"""`delineate user`, as it is typed."""

from __future__ import annotations

import argparse
import io
from uuid import uuid4

import pytest

from delineate.accounts import commands
from delineate.accounts.models import ApiToken, User
from delineate.accounts.tokens import user_by_token
from delineate.audit.models import Event
from delineate.errors import Conflict, Invalid, NotFound, NotSignedIn

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def delineate_user(monkeypatch):
    """A function: run `delineate user …` with a line on standard input."""

    def typed(*words: str, line: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(line))
        parser = argparse.ArgumentParser()
        commands.add_arguments(parser)
        return commands.run(parser.parse_args(words))

    return typed


def test_a_user_is_added_and_listed(delineate_user, capsys):
    words = ("add", "anna", "--name", "Anna Weber", "--superuser", "--password-stdin")
    assert delineate_user(*words, line=f"{PASSWORD}\n") == 0
    anna = User.objects.get()
    assert anna.check_password(PASSWORD)
    assert delineate_user("list") == 0
    assert capsys.readouterr().out == "Added anna.\nanna\tAnna Weber\tsuperuser\n"


def test_a_password_is_replaced(delineate_user):
    delineate_user("add", "anna", "--password-stdin", line=PASSWORD)
    assert delineate_user("password", "anna", "--password-stdin", line="another good one") == 0
    assert User.objects.get().check_password("another good one")


def test_refusals_have_their_sentences(delineate_user):
    with pytest.raises(NotFound, match="There is no user nobody"):
        delineate_user("password", "nobody", "--password-stdin", line=PASSWORD)
    with pytest.raises(Invalid, match="too short"):
        delineate_user("add", "anna", "--password-stdin", line="short")
    delineate_user("add", "anna", "--password-stdin", line=PASSWORD)
    with pytest.raises(Conflict, match="There is a user anna already"):
        delineate_user("add", "anna", "--password-stdin", line=PASSWORD)


def test_two_passwords_that_differ_are_refused(delineate_user, monkeypatch):
    typed = iter([PASSWORD, "something else"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    with pytest.raises(Invalid) as refusal:
        delineate_user("add", "anna")
    assert refusal.value.code == "passwords_differ"


def test_a_token_is_printed_once_listed_and_revoked(delineate_user, capsys):
    delineate_user("add", "anna", "--password-stdin", line=PASSWORD)
    project = str(uuid4())
    capsys.readouterr()
    words = ("token", "anna", "--name", "gateway", "--days", "7", "--read-only")
    assert delineate_user(*words, "--project", project) == 0
    printed = capsys.readouterr()
    secret = printed.out.removesuffix("\n")
    assert "not shown again" in printed.err
    assert user_by_token(secret, address="192.0.2.7").username == "anna"
    token = ApiToken.objects.get()
    assert delineate_user("tokens", "anna") == 0
    assert capsys.readouterr().out.split("\t") == [
        str(token.id),
        "gateway",
        f"expires {token.expires_at:%Y-%m-%d}",
        f"last used {token.last_used_at:%Y-%m-%d}",
        f"project {project}",
        "read only\n",
    ]
    assert delineate_user("revoke-token", "anna", str(token.id)) == 0
    with pytest.raises(NotSignedIn):
        user_by_token(secret, address="192.0.2.7")
    assert Event.objects.get(action="token_made").actor == "system"


def test_a_token_may_last_until_it_is_revoked(delineate_user, capsys):
    delineate_user("add", "anna", "--password-stdin", line=PASSWORD)
    assert delineate_user("token", "anna", "--name", "gateway", "--never-expires") == 0
    assert ApiToken.objects.get().expires_at is None
    capsys.readouterr()
    delineate_user("tokens", "anna")
    assert "\tnever expires\tnever used\n" in capsys.readouterr().out


def test_no_token_for_nobody(delineate_user):
    with pytest.raises(NotFound, match="There is no user nobody"):
        delineate_user("token", "nobody", "--name", "gateway")
    assert not ApiToken.objects.exists()
