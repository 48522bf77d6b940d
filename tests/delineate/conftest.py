"""What every test of the server shares."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _quick_password_hashing(settings):
    """Real hashing is slow on purpose; no test is about that."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
