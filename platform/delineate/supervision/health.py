"""Is it alive, is it well: what the supervisor and doctor ask."""

from __future__ import annotations

import http.client
import time
from typing import cast

import redis

from delineate.supervision.ports import LOOPBACK

PATIENCE_S = 3.0


def http_status(port: int, *, path: str = "/api/health") -> int | None:
    """The status of a GET on this machine; None when nobody answers in time."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def heartbeat_age_s(redis_url: str, queue: str) -> float | None:
    """Seconds since the queue's worker gave a sign of life; None when there is none.

    Raises redis.RedisError when Redis cannot say.
    """
    client = redis.Redis.from_url(
        redis_url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S
    )
    try:
        value = cast(bytes | None, client.get(f"heartbeat:{queue}"))
    finally:
        client.close()
    return None if value is None else max(0.0, time.time() - float(value))
