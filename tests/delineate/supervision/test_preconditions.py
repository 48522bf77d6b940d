"""Each refusal to start: a code, and one sentence that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from delineate.cli import main
from delineate.config.env import Machine
from delineate.supervision import refusals
from delineate.supervision.installation import (
    Installation,
    is_locked,
    locked,
    open_installation,
)
from delineate.supervision.ports import LOOPBACK, reserve
from delineate.supervision.preconditions import check_frontend, check_port, check_room


@pytest.fixture
def installation(folder: Path) -> Installation:
    """With its folders."""
    return open_installation(folder / "var")


def test_a_busy_port_names_who_has_it() -> None:
    with reserve() as held:
        held.listen()
        port = held.getsockname()[1]

        with pytest.raises(refusals.PortBusy) as refusal:
            check_port(port, instead="--port")

    assert refusal.value.code == "port_busy"
    assert f"Port {port} is in use by " in str(refusal.value)
    assert f"(process {os.getpid()})" in str(refusal.value)
    assert "--port" in str(refusal.value)
    check_port(port, instead="--port")


def test_a_full_disk_is_refused(installation: Installation) -> None:
    with pytest.raises(refusals.DiskFull, match="are needed to start") as refusal:
        check_room(installation, Machine(min_free_bytes=10**18))

    assert refusal.value.code == "disk_full"
    check_room(installation, Machine(min_free_bytes=1))


def test_pages_that_are_not_built_are_refused(folder: Path) -> None:
    with pytest.raises(refusals.FrontendMissing, match="make up") as refusal:
        check_frontend(Machine(frontend=folder))

    assert refusal.value.code == "frontend_not_built"
    (folder / "index.html").touch()
    check_frontend(Machine(frontend=folder))


def test_a_second_up_names_the_first(installation: Installation) -> None:
    script = (
        "import pathlib, sys\n"
        "from delineate.supervision.installation import locked, open_installation\n"
        f"with locked(open_installation(pathlib.Path({str(installation.var)!r}))):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(installation)

        with pytest.raises(refusals.AlreadyRunning, match=f"process {holder.pid}") as refusal:
            locked(installation).__enter__()

        assert refusal.value.code == "already_running"
        holder.kill()

    # What a killed holder leaves behind means nothing.
    assert (installation.run / "lock").exists()
    assert not is_locked(installation)
    with locked(installation):
        pass


def test_a_folder_that_cannot_be_made_is_refused(folder: Path) -> None:
    (folder / "file").touch()

    with pytest.raises(refusals.NotWritable, match="--var") as refusal:
        open_installation(folder / "file" / "var")

    assert refusal.value.code == "not_writable"


def test_the_command_prints_sentence_and_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").touch()

    assert main(["up", "--var", str(folder / "file")]) == 1

    printed = capsys.readouterr()
    assert printed.err.startswith("delineate: The folder ")
    assert printed.err.endswith("[not_writable]\n")


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DELINEATE_PORT", "zero")

    assert main(["up"]) == 1

    assert "port: Input should be a valid integer" in capsys.readouterr().err


def test_a_command_without_a_running_system_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["user", "--var", str(folder / "var")]) == 1

    assert "is not running: start it with `delineate up`" in capsys.readouterr().err


def test_secrets_are_made_once_and_private(installation: Installation) -> None:
    first = installation.secrets()

    assert installation.secrets() == first
    assert len({first.secret_key, first.postgres_password, first.redis_password}) == 3
    assert (installation.var / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_ports_are_kept_while_they_are_free(installation: Installation) -> None:
    first = installation.choose_ports("postgres", "redis")

    assert installation.choose_ports("postgres", "redis") == first
    with reserve() as other:
        taken = other.getsockname()[1]
        installation.remember_ports(redis=taken)
        second = installation.choose_ports("postgres", "redis")

    assert second["postgres"] == first["postgres"]
    assert second["redis"] != taken
    assert len(set(second.values())) == 2


def test_two_installations_have_different_names(folder: Path) -> None:
    one, other = open_installation(folder / "one"), open_installation(folder / "other")

    assert one.token != other.token
    assert LOOPBACK == "127.0.0.1"
