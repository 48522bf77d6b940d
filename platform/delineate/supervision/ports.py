"""Loopback ports: who listens, and free ones."""

from __future__ import annotations

import socket

import psutil

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: a connection that is still closing does not make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def reserve() -> socket.socket:
    """A free port, held until the returned socket is closed."""
    held = socket.socket()
    held.bind((LOOPBACK, 0))
    return held


def listener(port: int) -> str:
    """Who listens on the port, as words for a sentence."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or connection.laddr.port != port:
            continue
        try:
            return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
        except (psutil.NoSuchProcess, psutil.AccessDenied, TypeError, ValueError):
            break
    return "another process"
