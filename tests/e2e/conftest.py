"""A real browser, and a folder for a whole system."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser; without one a test is skipped, or fails where it must not be missing."""
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if found is None:
        sentence = (
            "No Chromium: install one to run the end-to-end tests (apt-get install chromium)."
        )
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that the databases' user may pass through."""
    made = Path(tempfile.mkdtemp(prefix="delineate-story-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)
