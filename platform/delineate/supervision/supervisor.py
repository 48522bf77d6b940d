"""Keeps processes running: one task per child, on one event loop.

A child that ends, or whose watch finds it dead, is started again after a pause that doubles up to
``LONGEST_PAUSE_S`` and shrinks back after a healthy minute. Stopping goes from the outside in:
the web process first, the databases last.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from delineate.supervision.child import Child, end_family, launch

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
POLL_S = 0.1
# A task that is cut off is owed by its row and done again; nobody should wait for it at Ctrl-C.
STOP_PATIENCE_S = 10.0
LOG_LIMIT_BYTES = 10 * 1024**2


@dataclass(frozen=True)
class Watch:
    """How to see that a child that still runs has died inwardly."""

    # Called in a thread. None: cannot be told now, for reasons that are not the child's.
    is_alive: Callable[[], bool | None]
    every_s: float = 5.0
    failures: int = 3  # this many in a row end it
    grace_s: float = 60.0  # while it starts, nothing is held against it


@dataclass
class _Kept:
    child: Child
    watch: Watch | None
    process: subprocess.Popen[bytes] | None = None
    task: asyncio.Task[None] | None = None
    stopping: bool = False
    ends: list[str] = field(default_factory=list)  # why it ended, each time


class Supervisor:
    """Children by name. All methods belong to the event loop of the main thread."""

    def __init__(
        self,
        *,
        logs: Path,
        inherited: Mapping[str, str],
        notice: Callable[[str], None],
        stop_patience_s: float = STOP_PATIENCE_S,
    ) -> None:
        self._logs = logs
        self._inherited = inherited
        self._notice = notice
        self._stop_patience_s = stop_patience_s
        self._kept: dict[str, _Kept] = {}

    def keep(self, child: Child, *, watch: Watch | None = None) -> None:
        """Start ``child`` and keep it running until it is stopped."""
        kept = _Kept(child, watch)
        self._kept[child.name] = kept
        kept.task = asyncio.create_task(self._keep_running(kept), name=child.name)

    def pid(self, name: str) -> int | None:
        """The child's process, None between two."""
        process = self._kept[name].process
        return process.pid if process is not None and process.poll() is None else None

    def ends(self, name: str) -> list[str]:
        """Why the child has ended so far, each time it was not asked to."""
        return list(self._kept[name].ends)

    def log_of(self, name: str) -> Path:
        """Where the child's output goes."""
        return self._logs / f"{name}.log"

    async def stop(self, *names: str) -> None:
        """End these children, all at once, first with patience; unknown names are fine."""
        await asyncio.gather(
            *(self._stop(self._kept[name]) for name in names if name in self._kept)
        )

    async def stop_all(self) -> None:
        """End every child at once."""
        await self.stop(*self._kept)

    async def _keep_running(self, kept: _Kept) -> None:
        name = kept.child.name
        pause_s = FIRST_PAUSE_S
        while not kept.stopping:
            started = time.monotonic()
            reason = await self._run_once(kept)
            if kept.stopping:
                return
            kept.ends.append(reason)
            if time.monotonic() - started > HEALTHY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            self._notice(
                f"{name} {reason}; starting it again in {pause_s:g} s ({self.log_of(name)})."
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run_once(self, kept: _Kept) -> str:
        """Run until the end; its reason, as the words after the child's name."""
        try:
            with _open_log(self.log_of(kept.child.name)) as log:
                process = launch(kept.child, inherited=self._inherited, log=log)
        except OSError as error:
            return f"could not be started ({error})"
        kept.process = process
        found_dead = asyncio.create_task(_until_found_dead(kept.watch))
        try:
            while process.poll() is None and not found_dead.done():
                await asyncio.sleep(POLL_S)
        finally:
            found_dead.cancel()
            is_silent = process.poll() is None  # asked before it is ended, which may be quick
            if not kept.stopping:
                # Also when it ended by itself: its own children may still be there.
                end_family(process, signal.SIGKILL)
        if is_silent:
            while process.poll() is None:
                await asyncio.sleep(POLL_S)
            return "gave no sign of life and was ended"
        return _how_it_ended(process.returncode)

    async def _stop(self, kept: _Kept) -> None:
        kept.stopping = True
        process = kept.process
        if process is not None and process.poll() is None:
            # To the leader alone: each of ours ends its own children in its own good order.
            process.send_signal(kept.child.stop_signal)
            deadline = time.monotonic() + self._stop_patience_s
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(POLL_S / 2)
        if process is not None:
            end_family(process, signal.SIGKILL)
            while process.poll() is None:
                await asyncio.sleep(POLL_S / 2)
        if kept.task is not None:
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)


async def _until_found_dead(watch: Watch | None) -> None:
    if watch is None:
        await asyncio.Event().wait()
        return
    await asyncio.sleep(watch.grace_s)
    failures = 0
    while failures < watch.failures:
        await asyncio.sleep(watch.every_s)
        alive = await asyncio.to_thread(watch.is_alive)
        if alive is not None:
            failures = 0 if alive else failures + 1


def _how_it_ended(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit status {returncode}"


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")
