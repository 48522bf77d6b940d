"""Real processes, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from delineate.supervision.child import Child
from delineate.supervision.installation import MARK, end_leftovers, open_installation
from delineate.supervision.supervisor import Supervisor, Watch
from tests.waiting import until

SLEEPER = Child(name="sleeper", command=("sleep", "600"))


async def test_a_killed_child_is_started_again(supervisor: Supervisor, notices: list[str]) -> None:
    supervisor.keep(SLEEPER)
    await until(lambda: supervisor.pid("sleeper"))
    first = supervisor.pid("sleeper")
    assert first is not None

    os.kill(first, signal.SIGKILL)

    await until(lambda: supervisor.pid("sleeper") not in (None, first))
    assert supervisor.ends("sleeper") == ["was ended by SIGKILL"]
    assert len(notices) == 1
    assert notices[0].startswith("sleeper was ended by SIGKILL; starting it again in 0.5 s (")


async def test_the_pause_doubles(supervisor: Supervisor, notices: list[str]) -> None:
    supervisor.keep(Child(name="quitter", command=("sh", "-c", "echo why; exit 3")))

    await until(lambda: len(notices) == 3)

    assert [notice.split(" (")[0] for notice in notices] == [
        "quitter ended with exit status 3; starting it again in 0.5 s",
        "quitter ended with exit status 3; starting it again in 1 s",
        "quitter ended with exit status 3; starting it again in 2 s",
    ]
    assert supervisor.log_of("quitter").read_text() == "why\n" * 3


async def test_a_program_that_is_missing_is_reported_and_tried_again(
    supervisor: Supervisor, notices: list[str]
) -> None:
    supervisor.keep(Child(name="ghost", command=("/no/such/program",)))

    await until(lambda: notices)

    assert "ghost could not be started" in notices[0]
    assert "/no/such/program" in notices[0]


async def test_a_child_without_signs_of_life_is_ended(
    supervisor: Supervisor, notices: list[str]
) -> None:
    watch = Watch(lambda: False, every_s=0.01, failures=3, grace_s=0)
    supervisor.keep(SLEEPER, watch=watch)

    await until(lambda: notices)

    assert supervisor.ends("sleeper")[0] == "gave no sign of life and was ended"


async def test_not_knowing_is_held_against_nobody(supervisor: Supervisor) -> None:
    answers = iter([False, None, False, None, True, False, False, True])
    asked = []

    def is_alive() -> bool | None:
        answer = next(answers, True)
        asked.append(answer)
        return answer

    supervisor.keep(SLEEPER, watch=Watch(is_alive, every_s=0.01, failures=3, grace_s=0))

    await until(lambda: len(asked) > 8)

    assert supervisor.ends("sleeper") == []


async def test_stopping_ends_the_whole_family_even_the_deaf(
    supervisor: Supervisor, folder: Path
) -> None:
    pids = folder / "pids"
    script = f"trap '' TERM; sleep 600 & echo $$ $! > {pids}; wait; wait"
    supervisor.keep(Child(name="deaf", command=("sh", "-c", script)))
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    family = [int(pid) for pid in pids.read_text().split()]

    await supervisor.stop("deaf")

    assert supervisor.pid("deaf") is None
    await until(lambda: not any(_runs(pid) for pid in family))


async def test_niceness_and_environment_reach_the_child(supervisor: Supervisor) -> None:
    child = Child(name="nice", command=("sleep", "600"), nice=7, env={"OMP_NUM_THREADS": "2"})
    supervisor.keep(child)
    await until(lambda: supervisor.pid("nice"))

    process = psutil.Process(supervisor.pid("nice"))

    assert process.nice() == os.nice(0) + 7
    # Each child is a session, and many a Linux shares the processors among those.
    sessions = Path(f"/proc/{process.pid}/autogroup")
    if sessions.exists():
        assert sessions.read_text().split()[-1] == "7"
    assert process.environ()["OMP_NUM_THREADS"] == "2"


async def test_a_long_log_is_set_aside_at_the_start(supervisor: Supervisor) -> None:
    log = supervisor.log_of("sleeper")
    with log.open("wb") as file:
        file.truncate(11 * 1024**2)

    supervisor.keep(SLEEPER)
    await until(lambda: supervisor.pid("sleeper"))

    assert log.stat().st_size == 0
    assert log.with_suffix(".log.1").stat().st_size == 11 * 1024**2


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells children of a death.")
async def test_children_die_with_a_supervisor_that_is_killed(folder: Path) -> None:
    script = f"""
import asyncio, os, pathlib
from delineate.supervision.child import Child
from delineate.supervision.supervisor import Supervisor

async def main():
    supervisor = Supervisor(logs=pathlib.Path({str(folder)!r}), inherited=os.environ, notice=print)
    supervisor.keep(Child(name="sleeper", command=("sleep", "600")))
    while supervisor.pid("sleeper") is None:
        await asyncio.sleep(0.01)
    print(supervisor.pid("sleeper"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()

    await until(lambda: not _runs(child))


async def test_what_a_killed_predecessor_left_is_ended(folder: Path) -> None:
    ours, others = open_installation(folder / "a"), open_installation(folder / "b")
    with (
        subprocess.Popen(["sleep", "600"], env={MARK: str(ours.var)}) as leftover,
        subprocess.Popen(["sleep", "600"], env={MARK: str(others.var)}) as neighbour,
    ):
        try:
            assert end_leftovers(ours) == 1
            assert not _runs(leftover.pid)
            assert neighbour.poll() is None
        finally:
            leftover.kill()
            neighbour.kill()


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
