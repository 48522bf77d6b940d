"""PostgreSQL and Redis from their wheels: killed and brought back, as root and as others."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from delineate.supervision import account, postgres_server, redis_server
from delineate.supervision.account import Account, can_reach, database_account
from delineate.supervision.ports import reserve
from delineate.supervision.postgres_server import PostgresServer
from delineate.supervision.redis_server import RedisServer
from delineate.supervision.refusals import OtherPostgres
from delineate.supervision.supervisor import Supervisor
from tests.waiting import until

PACKAGES = Path(sysconfig.get_path("purelib"))
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="Only root runs them as somebody else.")


async def test_postgres_comes_back_with_its_data(supervisor: Supervisor, folder: Path) -> None:
    server = _postgres(folder / "postgres", durable=True)
    supervisor.keep(server.child())
    await until(server.is_ready)
    first = supervisor.pid("postgres")
    assert first is not None
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept (what text)")
        connection.execute("INSERT INTO kept VALUES ('a mask')")
    # A backend in the middle of something, orphaned with its shared memory by the kill.
    busy = psycopg.connect(server.url)
    busy.execute("SELECT 1")

    os.kill(first, signal.SIGKILL)

    await until(lambda: supervisor.pid("postgres") not in (None, first) and server.is_ready())
    busy.close()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT what FROM kept").fetchall() == [("a mask",)]


async def test_postgres_ignores_the_pid_file_of_a_dead_server(
    supervisor: Supervisor, folder: Path
) -> None:
    server = _postgres(folder / "postgres")
    # As after a power cut, when the number has since been given to some other process.
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n")

    supervisor.keep(server.child())

    await until(server.is_ready)


async def test_redis_comes_back_with_its_data(supervisor: Supervisor, folder: Path) -> None:
    server = _redis(folder / "redis")
    supervisor.keep(server.child())
    await until(server.is_ready)
    first = supervisor.pid("redis")
    assert first is not None
    with redis.Redis.from_url(server.url) as client:
        client.rpush("queue", "a task")
        # The file is written out each second; what is acknowledged is in PostgreSQL (see module).
        await until(lambda: b"a task" in (server.folder / "appendonly.aof").read_bytes())

    os.kill(first, signal.SIGKILL)

    await until(lambda: supervisor.pid("redis") not in (None, first) and server.is_ready())
    with redis.Redis.from_url(server.url) as client:
        assert client.lrange("queue", 0, -1) == [b"a task"]


async def test_both_ask_for_the_password(supervisor: Supervisor, folder: Path) -> None:
    postgres, broker = _postgres(folder / "postgres"), _redis(folder / "redis")
    supervisor.keep(postgres.child())
    supervisor.keep(broker.child())
    await until(lambda: postgres.is_ready() and broker.is_ready())

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.url(port=postgres.port, password="wrong"))
    with (
        redis.Redis.from_url(redis_server.url(port=broker.port, password="wrong")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


async def test_a_stop_writes_everything_out(supervisor: Supervisor, folder: Path) -> None:
    server = _postgres(folder / "postgres")
    supervisor.keep(server.child())
    await until(server.is_ready)

    await supervisor.stop("postgres")

    assert "database system is shut down" in supervisor.log_of("postgres").read_text()
    assert not (server.data / "postmaster.pid").exists()


def test_an_interrupted_making_is_begun_anew(folder: Path) -> None:
    home = folder / "postgres"
    home.mkdir()
    (home / "making-abc").mkdir()

    server = _postgres(home)

    assert (server.data / "PG_VERSION").read_text().strip() == "18"


def test_another_versions_data_are_refused(folder: Path) -> None:
    server = _postgres(folder / "postgres")
    (server.data / "PG_VERSION").write_text("16\n")

    with pytest.raises(OtherPostgres, match="made by PostgreSQL 16") as refusal:
        _postgres(folder / "postgres")

    assert refusal.value.code == "other_postgres_version"


@ROOT_ONLY
def test_root_hands_the_databases_to_a_system_user(folder: Path) -> None:
    server = _postgres(folder / "postgres")

    assert server.account.uid != 0
    assert (folder / "postgres").stat().st_uid == server.account.uid
    assert stat.S_IMODE((folder / "postgres").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o700])
def test_no_folder_that_was_there_changes_its_mode(folder: Path, outside: Path, mode: int) -> None:
    parents = [folder / "home", folder / "home" / "checkout", folder / "home" / "checkout" / "var"]
    for parent in parents:
        parent.mkdir()
        parent.chmod(mode)
    before = [(parent.stat().st_mode, parent.stat().st_uid) for parent in parents]

    _postgres(parents[-1] / "postgres")
    _redis(parents[-1] / "redis")

    assert [(parent.stat().st_mode, parent.stat().st_uid) for parent in parents] == before


@ROOT_ONLY
async def test_a_checkout_closed_to_others_keeps_its_databases_outside(
    supervisor: Supervisor, folder: Path, outside: Path
) -> None:
    closed = folder / "root"
    closed.mkdir(mode=0o700)

    server = _postgres(closed / "postgres")
    again = _postgres(closed / "postgres")

    assert server.folder.parent == outside
    assert again.data == server.data
    assert list(closed.iterdir()) == []
    supervisor.keep(server.child())
    await until(server.is_ready)


@ROOT_ONLY
def test_programs_that_the_user_cannot_reach_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "closed" / "somewheel"
    (package / "bin").mkdir(parents=True)
    (folder / "closed").chmod(0o700)
    (package / "__init__.py").touch()
    (package / "bin" / "server").write_text("#!/bin/sh\necho started\n")
    (package / "bin" / "server").chmod(0o755)
    monkeypatch.syspath_prepend(folder / "closed")
    information = folder / "closed" / "somewheel-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: somewheel\nVersion: 1.0\n")
    user = database_account(folder / "none")
    home = account.own_folder(folder / "home", account=user)

    program = account.reachable_program("somewheel", "bin/server", folder=home, account=user)

    assert program == home / "server-1.0"
    ran = subprocess.run([program], user=user.uid, group=user.gid, capture_output=True, check=True)
    assert ran.stdout == b"started\n"


@ROOT_ONLY
def test_an_ordinary_user_runs_postgres_as_itself(folder: Path) -> None:
    ordinary = 65534  # nobody; Redis would run as anybody
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, ordinary, ordinary)
    script = f"""
import asyncio, os, pathlib
from delineate.supervision import postgres_server
from delineate.supervision.account import database_account
from delineate.supervision.ports import reserve
from delineate.supervision.supervisor import Supervisor

async def main():
    home = pathlib.Path({str(home)!r})
    account = database_account(home / "postgres")
    assert account.uid == {ordinary} and account.is_caller
    with reserve() as held:
        port = held.getsockname()[1]
    server = postgres_server.prepare(
        home / "postgres", port=port, password="secret", account=account, durable=False
    )
    supervisor = Supervisor(logs=home, inherited=os.environ, notice=print)
    supervisor.keep(server.child())
    async with asyncio.timeout(60):
        while not server.is_ready():
            await asyncio.sleep(0.05)
    await supervisor.stop_all()
    print("started")

asyncio.run(main())
"""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pythons = [Path(sys.executable).resolve(), Path("/usr/bin") / version]
    user = Account(ordinary, ordinary)
    python = next((p for p in pythons if p.exists() and can_reach(p, account=user)), None)
    if python is None or not can_reach(PACKAGES, account=user):
        pytest.skip("No Python that an ordinary user can reach has this project's packages.")
    search = os.pathsep.join([str(PACKAGES), str(Path(postgres_server.__file__).parents[2])])
    ran = subprocess.run(
        [python, "-c", script],
        user=ordinary,
        group=ordinary,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout == "started\n", ran.stderr


@pytest.fixture
def outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for /var/lib."""
    made = folder / "lib"
    made.mkdir(mode=0o755)
    monkeypatch.setattr(account, "OUTSIDE", made)
    yield made
    shutil.rmtree(made)


def _postgres(folder: Path, *, durable: bool = False) -> PostgresServer:
    account = database_account(folder)
    return postgres_server.prepare(
        folder, port=_port(), password="secret", account=account, durable=durable
    )


def _redis(folder: Path) -> RedisServer:
    return redis_server.prepare(
        folder, port=_port(), password="secret", account=database_account(folder)
    )


def _port() -> int:
    with reserve() as held:
        return int(held.getsockname()[1])
