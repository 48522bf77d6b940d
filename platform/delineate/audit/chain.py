"""The chain of events: each one holds the hash of the one before it, so that a change shows.

A chain per project, and one for the installation (project None). Appending takes a lock on the
chain until the transaction ends, so numbers have no gaps and no two events follow the same one;
call it last in a transaction, after the rows' own locks. Rows that others refer to are locked with
``no_key``: references are looked up when a transaction commits, this lock in its hand. The database
refuses to change or remove events (migration 0002); what somebody with the database's own rights
does is found by ``verify``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from uuid import UUID

from django.db import connection
from django.utils import timezone

from delineate.audit.models import Event
from delineate.errors import Conflict

Value = str | int | float | bool | None | list[str]


class ChainBroken(Conflict):
    """An event is not what it was, or is missing."""

    code = "audit_chain_broken"


def append(
    project_id: UUID | None, *, actor: str, action: str, subject: str, data: Mapping[str, Value]
) -> Event:
    """Add an event to a chain; call it inside the transaction of the act it records."""
    assert connection.in_atomic_block, "an event belongs to the transaction of its act"
    _lock(project_id)
    last = Event.objects.filter(project_id=project_id).order_by("-number").first()
    event = Event(
        project_id=project_id,
        number=last.number + 1 if last else 1,
        at=timezone.now(),
        actor=actor,
        action=action,
        subject=subject,
        data={key: _storable(value) for key, value in data.items()},
        previous_hash=last.hash if last else "",
    )
    event.hash = _hash(event)
    event.save(force_insert=True)
    return event


def verify(project_id: UUID | None) -> int:
    """Number of events of an unbroken chain; raises ChainBroken naming the first bad number."""
    number, previous_hash = 0, ""
    for event in Event.objects.filter(project_id=project_id).order_by("number").iterator():
        number += 1
        if event.number != number:
            raise ChainBroken(f"Event {number} is missing.", number=number)
        if event.previous_hash != previous_hash or event.hash != _hash(event):
            raise ChainBroken(f"Event {number} is not what was recorded.", number=number)
        previous_hash = event.hash
    return number


def verify_all() -> int:
    """Number of events in all chains; raises ChainBroken as ``verify`` does."""
    chains = Event.objects.order_by().values_list("project_id", flat=True).distinct()
    return sum(verify(project_id) for project_id in list(chains))


def _lock(project_id: UUID | None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"audit {project_id}"]
        )


def _storable(value: Value) -> Value:
    # PostgreSQL writes 1e22 without its exponent, and reading gives an int: store one at once.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _hash(event: Event) -> str:
    content = json.dumps(
        [
            None if event.project_id is None else str(event.project_id),
            event.number,
            event.at.isoformat(),
            event.actor,
            event.action,
            event.subject,
            event.data,
            event.previous_hash,
        ],
        sort_keys=True,
        allow_nan=False,
    )
    return hashlib.sha256(content.encode()).hexdigest()
