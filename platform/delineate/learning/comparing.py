"""Comparisons of two models that somebody asked for: a job like a run's judgement."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from delineate import jobs, live, storage, worker
from delineate.errors import DelineateError, NotFound
from delineate.jobs import MAX_ATTEMPTS, JobState
from delineate.learning import gate, snapshot
from delineate.learning.models import Comparison
from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationProgress,
    EvaluationResults,
)

UNSURE = 0.95  # the interval that is shown


def send(comparison: Comparison) -> None:
    """Ask the worker, once the transaction is committed."""
    with transaction.atomic():
        comparison.attempt += 1
        comparison.state, comparison.heartbeat_at = JobState.RUNNING, timezone.now()
        comparison.save(update_fields=["attempt", "state", "heartbeat_at"])
        try:
            data = snapshot.stored(comparison.snapshot)
        except DelineateError as refusal:
            jobs.fail(comparison, code=refusal.code, message=refusal.sentence)
            _tell(comparison)
            return
        worker.send(
            Evaluate(
                evaluation_id=str(comparison.id),
                attempt=comparison.attempt,
                model_digests=(comparison.first_id, comparison.second_id),
                data=data,
            )
        )


def sweep() -> None:
    """Send again what has been silent."""
    running = Comparison.objects.filter(state=JobState.RUNNING)
    jobs.mark_sent(worker.unseen(running, queue=Evaluate.queue))
    for comparison in jobs.release_after_silence(Comparison):
        if comparison.attempt >= MAX_ATTEMPTS:
            jobs.fail(
                comparison,
                code="gave_up",
                message=f"It was sent {MAX_ATTEMPTS} times without an answer.",
            )
            _tell(comparison)
        else:
            send(comparison)


def receive_progress(event: EvaluationProgress) -> None:
    """How far it has come."""
    Comparison.objects.filter(id=event.evaluation_id, state=JobState.RUNNING).update(
        done=event.done, of=event.of, heartbeat_at=timezone.now()
    )
    if (comparison := Comparison.objects.filter(id=event.evaluation_id).first()) is not None:
        _tell(comparison)


def receive_evaluated(event: EvaluationEnded) -> None:
    """Its end."""
    with transaction.atomic():
        comparison = (
            Comparison.objects.select_for_update(no_key=True)
            .filter(id=event.evaluation_id, state__in=[JobState.PENDING, JobState.RUNNING])
            .first()
        )
        if comparison is None:
            return
        if event.code:
            jobs.fail(comparison, code=event.code, message=event.message)
        else:
            try:
                results = EvaluationResults.model_validate_json(storage.get(comparison.results_key))
            except NotFound:
                return  # sent again after silence
            comparison.judgement = gate.judge(
                results.rows,
                candidate=comparison.second_id,
                opponent=comparison.first_id,
                trained_on=frozenset(),
                confidence=UNSURE,
                tolerance=0.0,
            ).model_dump(mode="json")
            comparison.state, comparison.finished_at = JobState.DONE, timezone.now()
            comparison.save()
        _tell(comparison)


def _tell(comparison: Comparison) -> None:
    live.tell(
        comparison.project_id,
        "comparison",
        id=comparison.id,
        state=str(comparison.state),
        done=comparison.done,
        of=comparison.of,
    )
