"""Making accounts."""

from __future__ import annotations

import pytest

from delineate.accounts.models import User
from delineate.accounts.services import create_user, set_password
from delineate.errors import Conflict, Invalid

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.mark.parametrize(
    ("username", "password", "code"),
    [
        ("", PASSWORD, "username_invalid"),
        ("anna weber", PASSWORD, "username_invalid"),
        ("a" * 151, PASSWORD, "username_invalid"),
        ("anna", "short", "password_weak"),
        ("anna", "password123", "password_weak"),
    ],
)
def test_an_account_needs_a_name_and_a_good_password(username, password, code):
    with pytest.raises(Invalid) as refusal:
        create_user(username, password=password)
    assert refusal.value.code == code
    assert not User.objects.exists()


def test_two_accounts_do_not_differ_by_case_alone():
    create_user("anna", password=PASSWORD)
    with pytest.raises(Conflict) as refusal:
        create_user("Anna", password=PASSWORD)
    assert refusal.value.code == "username_taken"


def test_a_password_set_for_somebody_works():
    anna = create_user("anna", password=PASSWORD)
    set_password(anna, new="a quite different one")
    assert User.objects.get().check_password("a quite different one")
