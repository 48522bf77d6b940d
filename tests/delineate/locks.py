"""Two transactions that meet in the database."""

from __future__ import annotations

import time

from django.db import connection

from tests.waiting import PATIENCE_S


def wait_until_somebody_waits_for_a_lock() -> None:
    """Asked on a connection of its own or on one that is in a transaction."""
    deadline = time.monotonic() + PATIENCE_S
    waiting = 0
    while not waiting:
        assert time.monotonic() < deadline, "nobody waits"
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE NOT granted AND datname = current_database()"
            )
            (waiting,) = cursor.fetchone()
