"""Is it alive, is it well: what the supervisor and doctor ask."""

from __future__ import annotations

import http.client
import socket
import time
from typing import cast
from urllib.parse import urlsplit

import redis

from delineate.supervision.ports import LOOPBACK

PATIENCE_S = 3.0


def own_origins(port: int) -> str:
    """For DELINEATE_ORIGINS, where the pages are only for this machine."""
    return f"http://{LOOPBACK}:{port},http://localhost:{port}"


def host_of(origins: str) -> str:
    """A host name that a server with these origins answers to."""
    return urlsplit(origins.split(",")[0].strip()).netloc


def http_status(port: int, *, host: str) -> int | None:
    """The status of the web process' health page; None when nobody answers in time."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/api/health", headers={"Host": host})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def listens(address: tuple[str, int]) -> bool:
    """Whether somebody takes connections there."""
    host, port = address
    everywhere = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 (asked of, not listened at)
    try:
        with socket.create_connection((everywhere.get(host, host), port), timeout=PATIENCE_S):
            return True
    except OSError:
        return False


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
