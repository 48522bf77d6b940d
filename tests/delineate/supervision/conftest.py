"""A folder the databases' user can pass through, and a supervisor."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from delineate.supervision.supervisor import Supervisor


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that others may pass through; pytest's own are closed to them."""
    made = Path(tempfile.mkdtemp(prefix="delineate-supervision-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def notices() -> list[str]:
    """What the supervisor says."""
    return []


@pytest.fixture
async def supervisor(folder: Path, notices: list[str]) -> AsyncIterator[Supervisor]:
    """Stopped at the end, whatever it keeps."""
    logs = folder / "log"
    logs.mkdir()
    made = Supervisor(
        logs=logs,
        inherited={"PATH": os.environ["PATH"]},
        notice=notices.append,
        stop_patience_s=2,
    )
    yield made
    await made.stop_all()
