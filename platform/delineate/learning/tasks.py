"""Celery's entrances to the loop that learns: what the worker tells, and the sweep."""

from __future__ import annotations

import logging

from celery import shared_task
from pydantic import ValidationError

from delineate.learning import agreement, comparing, erased, promotion, ranking, training
from mlworker.contract.learning import (
    LEARNING_EVENT_TASK,
    EvaluationEnded,
    EvaluationProgress,
    SlicesScored,
    TrainingEnded,
    TrainingProgress,
    learning_event_adapter,
)

logger = logging.getLogger(__name__)

SWEEP_TAKES_AT_MOST_S = 600  # a snapshot of 10,000 masks is frozen within


@shared_task(name=LEARNING_EVENT_TASK, time_limit=300)  # type: ignore[untyped-decorator]
def receive_learning_event_task(payload: str) -> None:
    """Take note of what the worker tells; safe to run twice."""
    try:
        event = learning_event_adapter.validate_json(payload)
    except ValidationError as error:
        logger.error("An event that is not of the contract was dropped: %s", error)
        return
    match event:
        case TrainingProgress():
            training.receive_progress(event)
        case TrainingEnded():
            training.receive_trained(event)
        case EvaluationProgress():
            training.receive_progress(event)
            comparing.receive_progress(event)
        case EvaluationEnded():
            training.receive_evaluated(event)
            comparing.receive_evaluated(event)
        case SlicesScored():
            ranking.receive(event)


@shared_task(name="delineate.sweep_learning", time_limit=SWEEP_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def sweep_learning_task() -> None:
    """Begin, send and promote what is due."""
    training.begin_what_is_due()
    training.sweep()
    comparing.sweep()
    ranking.sweep()
    promotion.sweep()


@shared_task(name="delineate.tidy_learning", time_limit=SWEEP_TAKES_AT_MOST_S)  # type: ignore[untyped-decorator]
def tidy_learning_task() -> None:
    """What nobody waits for: sets of those who are gone go, and what masks cost is worked out."""
    erased.sweep()
    agreement.work_out()
