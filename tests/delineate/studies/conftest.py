"""Every test of studies begins with an empty store."""

from __future__ import annotations

import pytest

from delineate import storage


@pytest.fixture(autouse=True)
def _empty_store():
    for prefix in ("studies/", "uploads/"):
        storage.delete_prefix(prefix)
