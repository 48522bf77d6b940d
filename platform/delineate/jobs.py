"""Durable jobs: a row per ingest, encoding and export; the broker only hurries them.

    arriving ──> pending ──claim──> running ──finish──> done
                    ▲                  │ ├────fail────> failed
                    └──── silent ──────┘ └────cancel──> (the row is deleted with its subject)

A job is *claimed* by whoever runs it; each claim raises ``attempt``, which fences off a predecessor
that was thought dead: its next sign of life raises TakenOver. A beat sweep re-sends what is due and
has been silent for ``SILENT_AFTER``. A job that dies with its process ``MAX_ATTEMPTS`` times fails
for good, so that a file that crashes its reader does not do so for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TypeVar

from django.db import models, transaction
from django.utils import timezone

from delineate.errors import DelineateError

logger = logging.getLogger(__name__)

SILENT_AFTER = timedelta(seconds=30)
MAX_ATTEMPTS = 5
TELL_EVERY_S = 0.5  # how far a job has come: what people watch, and PostgreSQL does not notice


class TakenOver(DelineateError):
    """This attempt was thought dead and another has taken the job."""

    code = "taken_over"


class JobState(models.TextChoices):
    """Where a job stands."""

    ARRIVING = "arriving"  # not owed yet: what it is about still comes in
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job(models.Model):
    """What every job remembers."""

    state = models.CharField(max_length=10, choices=JobState, default=JobState.PENDING)
    attempt = models.PositiveSmallIntegerField(default=0)
    # Set when the row is made and when it is sent, so that "silent" has one meaning.
    heartbeat_at = models.DateTimeField(default=timezone.now)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.TextField(blank=True)

    class Meta:
        abstract = True


JobT = TypeVar("JobT", bound=Job)


def claim(model: type[JobT], job_id: object) -> JobT | None:
    """Take a job that is owed; None when it is gone, ended, or alive in other hands."""
    with transaction.atomic():
        job = (
            model._default_manager.select_for_update(skip_locked=True, no_key=True)
            .filter(pk=job_id)
            .first()
        )
        if job is None or job.state not in (JobState.PENDING, JobState.RUNNING):
            return None
        alive = job.heartbeat_at > timezone.now() - SILENT_AFTER
        if job.state == JobState.RUNNING and alive:
            return None
        if job.attempt >= MAX_ATTEMPTS:
            _end(
                job,
                state=JobState.FAILED,
                code="gave_up",
                message=f"The job ended unfinished {MAX_ATTEMPTS} times and was given up.",
            )
            return None
        job.state = JobState.RUNNING
        job.attempt += 1
        job.heartbeat_at = timezone.now()
        job.save(update_fields=["state", "attempt", "heartbeat_at"])
        return job


def sign_of_life(job: Job) -> None:
    """Say that this attempt is alive; raises TakenOver when it is not the current one any more."""
    if not _mine(job).update(heartbeat_at=timezone.now()):
        raise TakenOver("Another attempt has taken this job.")


class Pulse:
    """A running job's signs of life, given as often as it likes and taken seldom.

    ``note`` saves how far the job has come and tells it, in the transaction of the sign.
    """

    def __init__(self, job: Job, note: Callable[[], None]) -> None:
        self._job, self._note = job, note
        self._last = 0.0

    def beat(self) -> None:
        """Raises TakenOver when this attempt is not the current one any more."""
        if time.monotonic() - self._last < TELL_EVERY_S:
            return
        self._last = time.monotonic()
        with transaction.atomic():
            sign_of_life(self._job)
            self._note()


def finish(job: Job) -> None:
    """End a job well; call it in the transaction that stores its result."""
    if not _mine(job).update(state=JobState.DONE, finished_at=timezone.now()):
        raise TakenOver("Another attempt has taken this job.")
    job.state = JobState.DONE


def fail(job: Job, *, code: str, message: str) -> None:
    """End a job with a reason a person can read."""
    _end(job, state=JobState.FAILED, code=code, message=message)


def refuse(job: Job, refusal: DelineateError, *, tell: Callable[[], None]) -> None:
    """End a running job with a refusal and tell it; nothing where another attempt has taken it."""
    try:
        with transaction.atomic():
            sign_of_life(job)
            fail(job, code=refusal.code, message=refusal.sentence)
            tell()
    except TakenOver:
        logger.info("%s %s was taken over", type(job)._meta.verbose_name, job.pk)


def mark_sent(queryset: models.QuerySet[JobT]) -> int:
    """Start the silence anew for jobs that were just (re-)sent."""
    return queryset.update(heartbeat_at=timezone.now())


def release_after_silence(
    model: type[JobT],
    *,
    states: Collection[JobState] = (JobState.PENDING, JobState.RUNNING),
) -> list[JobT]:
    """Jobs to send again, their silence started anew so that the next sweep leaves them alone."""
    now = timezone.now()
    with transaction.atomic():
        silent = list(
            model._default_manager.select_for_update(skip_locked=True, no_key=True).filter(
                state__in=states, heartbeat_at__lt=now - SILENT_AFTER
            )
        )
        released = model._default_manager.filter(pk__in=[job.pk for job in silent])
        released.update(state=JobState.PENDING, heartbeat_at=now)
    for job in silent:
        job.state, job.heartbeat_at = JobState.PENDING, now
    return silent


def _mine(job: Job) -> models.QuerySet[Job]:
    return type(job)._default_manager.filter(pk=job.pk, attempt=job.attempt, state=JobState.RUNNING)


def _end(job: Job, *, state: JobState, code: str, message: str) -> None:
    job.state = state
    job.finished_at = timezone.now()
    job.error_code = code
    job.error_message = message
    job.save(update_fields=["state", "finished_at", "error_code", "error_message"])
