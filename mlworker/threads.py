"""How many threads a decode takes: all of them, or one while an encoder works on the same machine.

torch cuts each operation into a piece per thread and waits, spinning, until all have ended. Alone
on the machine two threads are the quickest. Beside an encoder, however nicely it runs, the spinning
thread takes the core that the other piece needs, and a decode becomes many times slower; one thread
waits for nobody. So encoders say in Redis that they are at work, and a click asks.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
import torch

logger = logging.getLogger(__name__)

_BUSY_KEY: Final = f"encoding:{platform.node()}"
# An encoder that dies is believed for this long; no batch takes longer on a machine worth it.
_BELIEVED_FOR_S: Final = 30
# Between two batches of a full queue the encoder is only seemingly idle.
_AFTERWARDS_MS: Final = 1500


@contextmanager
def encoding(connection: redis.Redis) -> Iterator[None]:
    """Say that this machine encodes, while it does and shortly after."""
    _say(connection, px=_BELIEVED_FOR_S * 1000)
    try:
        yield
    finally:
        _say(connection, px=_AFTERWARDS_MS)


def take_threads(connection: redis.Redis, *, at_most: int) -> None:
    """Set torch's threads for the decode that follows."""
    threads = 1 if _is_encoding(connection) else at_most
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _is_encoding(connection: redis.Redis) -> bool:
    try:
        return bool(connection.exists(_BUSY_KEY))
    except redis.RedisError:
        return False  # the answer could not be sent either; speed is the least concern


def _say(connection: redis.Redis, *, px: int) -> None:
    try:
        connection.set(_BUSY_KEY, 1, px=px)
    except redis.RedisError as error:
        logger.warning("Clicks are not told of this encoding: %s", error)
