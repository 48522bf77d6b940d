"""Objects on their way into the store: while some wait for the disk, the next are read.

A disk takes as long for one object as for several at once. Nothing counts as kept before ``wait``
has returned.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from delineate import storage

AT_ONCE: Final = 4
MOST_BYTES: Final = 64 * 1024**2  # that wait in memory


class Keeping:
    """Objects that are being stored; an error of the store is raised by what comes after it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="keeping")
        self._owed: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._threads.shutdown()

    def put(self, key: str, data: bytes) -> None:
        """Begin to store ``data`` under ``key``."""
        while self._owed and self._waiting_bytes + len(data) > MOST_BYTES:
            self._wait_for_one()
        self._owed.append((self._threads.submit(storage.put, key, data), len(data)))
        self._waiting_bytes += len(data)

    def wait(self) -> None:
        """Until all is durable."""
        while self._owed:
            self._wait_for_one()

    def delete(self, key: str) -> None:
        """Remove an object, also one that was still on its way."""
        self.wait()
        storage.delete(key)

    def _wait_for_one(self) -> None:
        stored, size = self._owed.popleft()
        self._waiting_bytes -= size
        stored.result()
