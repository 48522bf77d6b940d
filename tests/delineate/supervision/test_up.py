"""`delineate up` as people use it: the whole system, killed in every part, stopped and started."""

from __future__ import annotations

import functools
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from delineate.config.env import Machine
from delineate.supervision import redis_server
from delineate.supervision.installation import MARK, Installation
from delineate.supervision.ports import reserve
from delineate.supervision.processes import processes
from tests.waiting import until

KILLED = ["web", "server", "beat", "interactive", "encode", "train", "redis", "postgres"]


@dataclass(frozen=True)
class Started:
    """A system that runs in a process of its own."""

    process: subprocess.Popen[bytes]
    output: Path
    var: Path
    port: int

    def children(self) -> dict[str, psutil.Process]:
        """The supervised processes by name."""
        children = psutil.Process(self.process.pid).children()
        return {_name(child): child for child in children}

    def is_healthy(self) -> bool:
        """Whether the web process says that it and the databases are well."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@pytest.fixture
async def system(folder: Path) -> AsyncIterator[Started]:
    """Started and ready."""
    with _up(folder, port=_free_port()) as started:
        await _until_ready(started)
        yield started


async def test_everything_runs_and_what_is_killed_comes_back(system: Started) -> None:
    assert sorted(system.children()) == sorted(KILLED)
    doctor = _delineate(system, "doctor")
    # Without a demo there is no model: that, and nothing else, is found.
    assert [line for line in doctor.stdout.splitlines() if line.startswith("NOT OK")] == [
        line for line in doctor.stdout.splitlines() if "There is no default model" in line
    ]
    added = _delineate(system, "user", "add", "--password-stdin", "anna", stdin="Pass-word-19\n")
    assert (added.returncode, added.stderr) == (0, "")

    for name in KILLED:
        victim = system.children()[name]
        victim.kill()
        await until(functools.partial(_is_another, system, name, than=victim))
        await until(system.is_healthy)

    assert "anna" in _delineate(system, "user", "list").stdout
    await until(_send_to_every_queue(system))  # workers that lost their broker have found it
    assert _delineate(system, "doctor").stdout == doctor.stdout


async def test_a_stop_is_clean_and_the_next_start_keeps_everything(folder: Path) -> None:
    port = _free_port()
    with _up(folder, port=port) as first:
        await _until_ready(first)
        _delineate(first, "user", "add", "--password-stdin", "anna", stdin="Pass-word-19\n")
        ports = json.loads((first.var / "ports.json").read_text())
        secrets = (first.var / "secrets.json").read_text()
        another = _delineate(first, "up", "--port", str(_free_port()))
        assert another.returncode == 1
        assert f"(process {first.process.pid}) already runs" in another.stderr
        assert another.stderr.endswith("[already_running]\n")

        first.process.send_signal(signal.SIGINT)
        await until(lambda: first.process.poll() is not None)

        assert first.process.returncode == 0
        assert first.output.read_text().splitlines()[-1] == (
            "Everything has been stopped; the data are kept."
        )
        assert _remaining(first.var) == []

    with _up(folder, port=port) as second:
        await _until_ready(second)
        assert "anna" in _delineate(second, "user", "list").stdout
        assert json.loads((second.var / "ports.json").read_text()) == ports
        assert (second.var / "secrets.json").read_text() == secrets


async def test_after_the_supervisor_itself_was_killed_the_next_start_is_whole(
    folder: Path,
) -> None:
    port = _free_port()
    with _up(folder, port=port) as first:
        await _until_ready(first)
        first.process.kill()
        first.process.wait()

    with _up(folder, port=port) as second:
        await _until_ready(second)
        assert sorted(second.children()) == sorted(KILLED)


def test_two_systems_have_nothing_in_common(folder: Path) -> None:
    """Their names differ wherever they could meet; see also test_preconditions."""
    one = processes(Machine(), node_suffix="-one")
    other = processes(Machine(), node_suffix="-other")

    workers = [(a, b) for a, b in zip(one, other, strict=True) if a.queue]
    assert workers
    assert all(a.command != b.command for a, b in workers)


@contextmanager
def _up(folder: Path, *, port: int) -> Iterator[Started]:
    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    (pages / "index.html").write_text("<!doctype html><title>Delineate</title>")
    output = folder / "up.log"
    command = [*_command("up"), "--no-demo", "--var", str(folder / "var"), "--port", str(port)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env=_environment(folder), stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield Started(process, output, folder / "var", port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def _until_ready(started: Started) -> None:
    def is_ready() -> bool:
        assert started.process.poll() is None, started.output.read_text()
        return "Delineate is ready" in started.output.read_text()

    await until(is_ready)


def _delineate(
    started: Started, command: str, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_command(command), "--var", str(started.var), *arguments],
        env=_environment(started.var.parent),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def _command(name: str) -> list[str]:
    return [sys.executable, "-c", "from delineate.cli import main; exit(main())", name]


def _environment(folder: Path) -> dict[str, str]:
    ours = ("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "DJANGO_SETTINGS_MODULE")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("DELINEATE_")
    }
    return {**inherited, "DELINEATE_FRONTEND": str(folder / "pages")}


def _name(child: psutil.Process) -> str:
    command: list[str] = child.cmdline()
    if "-Q" in command:
        return command[command.index("-Q") + 1]
    for name, word in {"web": "uvicorn", "beat": "beat"}.items():
        if word in command:
            return name
    program = str(child.name())
    return {"redis-server": "redis"}.get(program, program)


def _is_another(system: Started, name: str, *, than: psutil.Process) -> bool:
    try:
        found = system.children().get(name)
    except psutil.NoSuchProcess:  # one that ended while it was being looked at
        return False
    return found is not None and found.pid != than.pid


def _send_to_every_queue(system: Started) -> Callable[[], bool]:
    """Send a task that nobody knows: it is taken and refused, and does no harm. Whether it was."""
    installation = Installation(system.var)
    port, password = installation.remembered_ports()["redis"], installation.secrets().redis_password
    url = redis_server.url(port=port, password=password)
    queues = [process.queue for process in processes(Machine()) if process.queue]
    with Celery(broker=url, set_as_current=False) as app:
        for queue in queues:
            app.send_task("tests.nobody_knows", queue=queue)

    def is_taken() -> bool:
        with redis.Redis.from_url(url) as client:
            return not any(client.llen(queue) for queue in queues)

    return is_taken


def _remaining(var: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(var) or str(var) in process.cwd():
                found.append(process.name())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _free_port() -> int:
    with reserve() as held:
        return int(held.getsockname()[1])
