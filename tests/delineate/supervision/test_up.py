"""`delineate up` as people use it: the whole system, killed in every part, stopped and started."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery

from delineate.config.env import Machine
from delineate.supervision import redis_server
from delineate.supervision.installation import MARK, Installation
from delineate.supervision.processes import processes
from tests.system import Started, blank_pages, free_port, up
from tests.waiting import until

KILLED = ["web", "server", "beat", "interactive", "encode", "train", "redis", "postgres"]
WAYS_IN = ["dimse", "watch"]


@pytest.fixture
async def system(folder: Path) -> AsyncIterator[Started]:
    """Started and ready, with every way in open."""
    (folder / "incoming").mkdir()
    told = {
        "DELINEATE_DICOM_PORT": str(free_port()),
        "DELINEATE_DICOM_CALLERS": "CT1=Livers:anna",
        "DELINEATE_WATCH": f"{folder / 'incoming'}=Livers:anna",
    }
    with up(folder, port=free_port(), pages=blank_pages(folder), told=told) as started:
        await started.until_ready()
        yield started


async def test_everything_runs_and_what_is_killed_comes_back(system: Started) -> None:
    assert sorted(system.children()) == sorted([*KILLED, *WAYS_IN])
    doctor = system.delineate("doctor")
    # Without a demo there is no model: that, and nothing else, is found.
    assert [line for line in doctor.stdout.splitlines() if line.startswith("NOT OK")] == [
        line for line in doctor.stdout.splitlines() if "There is no default model" in line
    ]
    added = system.delineate("user", "add", "--password-stdin", "anna", stdin="Pass-word-19\n")
    assert (added.returncode, added.stderr) == (0, "")

    for name in [*KILLED, *WAYS_IN]:
        victim = system.children()[name]
        victim.kill()
        await until(functools.partial(_is_another, system, name, than=victim))
        await until(system.is_healthy)

    assert "anna" in system.delineate("user", "list").stdout
    await until(_send_to_every_queue(system))  # workers that lost their broker have found it
    assert system.delineate("doctor").stdout == doctor.stdout


async def test_a_stop_is_clean_and_the_next_start_keeps_everything(folder: Path) -> None:
    port = free_port()
    with up(folder, port=port, pages=blank_pages(folder)) as first:
        await first.until_ready()
        first.delineate("user", "add", "--password-stdin", "anna", stdin="Pass-word-19\n")
        ports = json.loads((first.var / "ports.json").read_text())
        secrets = (first.var / "secrets.json").read_text()
        another = first.delineate("up", "--port", str(free_port()))
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

    with up(folder, port=port, pages=blank_pages(folder)) as second:
        await second.until_ready()
        assert "anna" in second.delineate("user", "list").stdout
        assert json.loads((second.var / "ports.json").read_text()) == ports
        assert (second.var / "secrets.json").read_text() == secrets


async def test_after_the_supervisor_itself_was_killed_the_next_start_is_whole(
    folder: Path,
) -> None:
    port = free_port()
    with up(folder, port=port, pages=blank_pages(folder)) as first:
        await first.until_ready()
        first.process.kill()
        first.process.wait()

    with up(folder, port=port, pages=blank_pages(folder)) as second:
        await second.until_ready()
        assert sorted(second.children()) == sorted(KILLED)


def test_two_systems_have_nothing_in_common(folder: Path) -> None:
    """Their names differ wherever they could meet; see also test_preconditions."""
    one = processes(Machine(), node_suffix="-one")
    other = processes(Machine(), node_suffix="-other")

    workers = [(a, b) for a, b in zip(one, other, strict=True) if a.queue]
    assert workers
    assert all(a.command != b.command for a, b in workers)


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
