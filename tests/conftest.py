"""Real PostgreSQL and Redis for every test that asks for a database or for the broker.

Django's settings are read while pytest configures itself, so addresses, passwords and ports are
fixed here, at import; the servers themselves start with the first test that needs them. Every run
has its own, in its own folder and on its own ports: runs can go side by side.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import django
import pytest
import redis

from delineate.supervision import postgres_server, redis_server
from delineate.supervision.account import database_account
from delineate.supervision.child import Child, end_family, launch
from delineate.supervision.ports import reserve

_PASSWORD = secrets.token_hex(16)
_FOLDER = Path(tempfile.mkdtemp(prefix="delineate-tests-"))
_FOLDER.chmod(0o711)  # ours; the databases' user passes through it to its own folders
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_HELD = {"postgres": reserve(), "redis": reserve()}
_PORTS = {name: held.getsockname()[1] for name, held in _HELD.items()}


@dataclass(frozen=True)
class Services:
    """The addresses of this run's servers, as the environment has them."""

    database_url: str
    redis_url: str
    storage_url: str


SERVICES = Services(
    database_url=f"postgres://delineate:{_PASSWORD}@127.0.0.1:{_PORTS['postgres']}/delineate",
    redis_url=f"redis://:{_PASSWORD}@127.0.0.1:{_PORTS['redis']}/0",
    storage_url=f"file://{_FOLDER}/objects",
)
os.environ.update(
    DJANGO_SETTINGS_MODULE="delineate.config.settings",
    DELINEATE_SECRET_KEY=secrets.token_hex(32),
    DELINEATE_ORIGINS="http://testserver,http://127.0.0.1,http://localhost",
    DATABASE_URL=SERVICES.database_url,
    REDIS_URL=SERVICES.redis_url,
    STORAGE_URL=SERVICES.storage_url,
)
# Here and not by pytest-django, which would read the settings before this file is loaded; and not
# in pytest_configure, which runs after the conftests of folders named on the command line.
django.setup()


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """PostgreSQL (empty) and Redis, running; the storage folder exists."""
    (_FOLDER / "objects").mkdir(exist_ok=True)
    account = database_account(_FOLDER / "postgres")
    for held in _HELD.values():
        held.close()
    postgres = postgres_server.prepare(
        _FOLDER / "postgres",
        port=_PORTS["postgres"],
        password=_PASSWORD,
        account=account,
        durable=False,
    )
    broker = redis_server.prepare(
        _FOLDER / "redis",
        port=_PORTS["redis"],
        password=_PASSWORD,
        account=account,
        durable=False,
    )
    running = [_start(broker.child()), _start(postgres.child())]
    try:
        _wait_until(broker.is_ready)
        _wait_until(postgres.is_ready)
        yield SERVICES
    finally:
        for process in running:
            # Tests' data are thrown away: nothing needs writing out.
            end_family(process, signal.SIGKILL)
            process.wait()
        postgres_server.clear_leftovers(postgres.data)


@pytest.fixture
def broker(services: Services) -> Iterator[redis.Redis]:
    """Redis, empty when the test begins."""
    yield from _emptied_broker(services)


@pytest.fixture(scope="module")
def module_broker(services: Services) -> Iterator[redis.Redis]:
    """Redis, empty when the module's first test begins: for a worker that they all share."""
    yield from _emptied_broker(services)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(services: Services) -> None:
    """Makes every database test wait for the servers."""


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The shared data beside the repository, or a skip that says what is missing."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("DELINEATE_SHARED", root.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"The shared data are not at {folder}; set DELINEATE_SHARED to their folder.")
    return folder


def _emptied_broker(services: Services) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushdb()
        yield client


def _start(child: Child) -> subprocess.Popen[bytes]:
    with (_FOLDER / f"{child.name}.log").open("ab") as log:
        return launch(child, inherited={"PATH": os.environ["PATH"], "TZ": "UTC"}, log=log)


def _wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not claim():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text() for path in _FOLDER.glob("*.log"))
            pytest.fail(f"The test servers did not start:\n{logs}")
        time.sleep(0.02)
