"""Waiting for what other processes do, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60.0


async def until(claim: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Wait for ``claim`` to hold; fails when it does not come true."""
    deadline = time.monotonic() + patience_s
    while not claim():
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.02)


def wait_until(claim: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """The same without an event loop: for claims that ask the database."""
    deadline = time.monotonic() + patience_s
    while not claim():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.02)
