"""How often somebody may be wrong about a secret: ten times in five minutes, then not at all.

Enough for a person who forgot, hopeless for a machine. Failures are remembered under a key, a
digest of what was tried from where, and forgotten with time.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

from django.db import connection
from django.utils import timezone

from delineate.accounts.models import FailedSignIn

FAILURES_ALLOWED: Final = 10
FAILURES_FORGOTTEN_AFTER: Final = timedelta(minutes=5)


def key_of(tried: str, *, address: str) -> str:
    """What failures are remembered under: neither names nor addresses."""
    return hashlib.sha256(f"{tried}\n{address}".encode()).hexdigest()


def is_exhausted(key: str) -> bool:
    """Whether ``key`` has failed too often; other attempts wait until the transaction ends."""
    # One guess at a time, or many at once would all be counted as the first.
    lock(f"sign-in {key}")
    FailedSignIn.objects.filter(at__lt=timezone.now() - FAILURES_FORGOTTEN_AFTER).delete()
    return FailedSignIn.objects.filter(key=key).count() >= FAILURES_ALLOWED


def note_failure(key: str) -> None:
    """Count one more; it holds only if the transaction is committed."""
    FailedSignIn.objects.create(key=key)


def forget_failures(key: str) -> None:
    """Start anew: the right secret was given."""
    FailedSignIn.objects.filter(key=key).delete()


def lock(what: str) -> None:
    """Let others who lock the same wait until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [what])
