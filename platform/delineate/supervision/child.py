"""A process to run, and its launch: its own session, its user, its niceness, its death with us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from delineate.supervision.account import Account

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Child:
    """What to run and how to end it."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  # added to what is inherited
    folder: Path = Path("/")
    nice: int = 0
    account: Account | None = None  # None: the caller's
    stop_signal: signal.Signals = signal.SIGTERM
    # What ends it, unasked, when its supervisor has died without a chance to say so.
    orphan_signal: signal.Signals = signal.SIGKILL
    # Clears away what a predecessor that was killed has left behind.
    before_start: Callable[[], None] | None = None


def launch(
    child: Child, *, inherited: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start ``child``; it leads a session of its own, so that its whole family can be ended.

    The kernel sends ``orphan_signal`` when the launching *thread* ends: call from the main one.
    """
    if child.before_start is not None:
        child.before_start()
    other_user = child.account is not None and not child.account.is_caller
    account = child.account if other_user else None
    # preexec_fn is the one place between fork and exec, and after the change of user, which would
    # clear the death signal. It is frowned upon because other threads may hold locks at the fork:
    # what runs there takes none and imports nothing.
    supervisor = os.getpid()
    return subprocess.Popen(
        child.command,
        env={**inherited, **child.env},
        cwd=child.folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        preexec_fn=lambda: _prepare(child, parent=supervisor),
    )


def _prepare(child: Child, *, parent: int) -> None:
    os.nice(child.nice)
    _be_nice_as_a_session(child.nice)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(child.orphan_signal))
        if os.getppid() != parent:  # it died before we could ask to be told
            os._exit(1)


def _be_nice_as_a_session(nice: int) -> None:
    """Where Linux shares the processors among sessions, a process's own niceness moves nothing.

    See sched(7), "The autogroup feature".
    """
    try:
        file = os.open("/proc/self/autogroup", os.O_WRONLY)
    except OSError:  # another system, or a kernel without it
        return
    try:
        os.write(file, str(nice).encode())
    except OSError:  # not allowed in this container
        pass
    finally:
        os.close(file)


def end_family(process: subprocess.Popen[bytes], sent: signal.Signals) -> None:
    """Send a signal to the process and all that it started and that stayed in its session."""
    try:
        os.killpg(process.pid, sent)
    except ProcessLookupError:
        return
