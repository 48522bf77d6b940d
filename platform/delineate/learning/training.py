"""Runs: begun by a schedule or a lead, one after the other, kept alive until they have an end.

    pending ──its turn──> running: training ──model──> running: evaluating ──> done, with a verdict
                             │                              │
                             └───────────────┴──> failed: a sentence; it is not begun again

Who waits longest goes first: the project whose last run began the longest ago. The worker tells how
far it has come every few seconds; what has been silent is sent again and goes on from what the
worker last kept. Sendings that bring it no further count, and after MAX_ATTEMPTS it is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from delineate import jobs, live, storage, worker
from delineate.accounts.models import User
from delineate.annotation.models import MaskRevision
from delineate.annotation.transitions import State
from delineate.audit import log as audit
from delineate.errors import Conflict, DelineateError, NotFound
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER, JobState
from delineate.learning import gate, promotion, snapshot
from delineate.learning.lineage import learnt_from
from delineate.learning.models import (
    LearningSettings,
    Parent,
    Part,
    Schedule,
    Stage,
    TrainingRun,
    Verdict,
)
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.registry.jobs import register
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import active_model, default_model
from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationProgress,
    EvaluationResults,
    FineTune,
    NewCheckpoint,
    Recipe,
    TrainingEnded,
    TrainingProgress,
)
from mlworker.contract.messages import CheckpointAdded

logger = logging.getLogger(__name__)

CURVE_POINTS: Final = 400
LOG_LINES: Final = 500
# A run that failed by itself is not begun again by the schedule before so much has passed …
PAUSE_AFTER_FAILURE: Final = timedelta(hours=20)
UNDER_WAY: Final = (JobState.PENDING, JobState.RUNNING)


class RunUnderWay(Conflict):
    """A project learns one thing at a time."""

    code = "run_under_way"


def new_masks(project: Project) -> int:
    """How many masks of reviewed tasks were accepted since the last run began."""
    last = project.runs.aggregate(last=Max("created_at"))["last"]
    revisions = MaskRevision.objects.filter(
        task__series__study__project=project, task__state=State.ACCEPTED
    )
    # By when the review was: a mask counts once somebody has looked at it.
    if last is not None:
        revisions = revisions.filter(
            Q(at__gt=last) | Q(task__reviews__decision="accepted", task__reviews__at__gt=last)
        )
    return revisions.values("slice", "label").distinct().count()


def due(project: Project, *, now: datetime | None = None) -> tuple[bool, str]:
    """Whether a run is to begin by itself, and what it waits for, in a sentence."""
    settings, now = LearningSettings.of(project), now or timezone.now()
    if settings.schedule == Schedule.OFF:
        return False, "Runs begin by hand only."
    if project.runs.filter(state__in=UNDER_WAY).exists():
        return False, "A run is under way."
    last = project.runs.first()
    if last is not None and last.state == JobState.FAILED and last.error_code != "cancelled":
        again = (last.finished_at or last.created_at) + PAUSE_AFTER_FAILURE
        if now < again:
            return False, f"The last run failed; the next may begin after {again:%d %B, %H:%M} UTC."
    new = new_masks(project)
    wanted = settings.every_masks if settings.schedule == Schedule.MASKS else 1
    if new < wanted:
        missing = wanted - new
        return False, f"Waits for {missing} more accepted mask{'' if missing == 1 else 's'}."
    if not _is_open(settings, now):
        return False, (
            f"Begins between {settings.window_from:02}:00 and {settings.window_until:02}:00 UTC."
        )
    if settings.schedule == Schedule.NIGHTLY and last is not None:
        again = last.created_at + PAUSE_AFTER_FAILURE
        if now < again:
            return False, f"The next night's run begins after {again:%d %B, %H:%M} UTC."
    return True, "Due now."


def begin(project: Project, *, by: User | None) -> TrainingRun:
    """Owe a run; raises RunUnderWay, NothingToLearn, Conflict ``no_model``."""
    with transaction.atomic():
        project = lock(project.id)
        settings = LearningSettings.of(project)
        parent = _parent_of_next(project, settings)
        last = project.runs.aggregate(last=Max("number"))["last"]
        run = TrainingRun.objects.create(
            project=project,
            number=(last or 0) + 1,
            parent=parent,
            by=by,
            recipe=Recipe(
                trainable=settings.trainable,
                epochs=settings.epochs,
                learning_rate=settings.learning_rate,
                seed=(last or 0) + 1,
            ).model_dump(mode="json"),
            budget_s=_budget_s(settings, scheduled=by is None),
        )
        _write(run, "Waits for its turn.")
        run.save(update_fields=["log"])
        audit.run_started(project.id, run.id, by=by, number=run.number, parent=parent.digest)
        _tell(run)
    return run


def refusal(project: Project) -> str | None:
    """Why no run can be begun now, in a sentence; None where one can."""
    try:
        _parent_of_next(project, LearningSettings.of(project))
    except Conflict as refused:
        return refused.sentence
    return None


def _parent_of_next(project: Project, settings: LearningSettings) -> ModelVersion:
    """What a run would begin with; raises what `begin` does."""
    if project.runs.filter(state__in=UNDER_WAY).exists():
        raise RunUnderWay("A run of this project is under way: wait for it, or stop it.")
    if not snapshot.masks_by_subject(project):
        raise snapshot.NothingToLearn(
            "There is nothing to learn from: no task with masks has been accepted by a reviewer."
        )
    return _parent(project, settings)


def begin_what_is_due() -> None:
    """Begin the runs that schedules want."""
    for settings in LearningSettings.objects.exclude(schedule=Schedule.OFF).select_related(
        "project"
    ):
        is_due, _ = due(settings.project)
        if is_due:
            try:
                begin(settings.project, by=None)
            except Conflict as refusal:  # nobody may be learnt from, or somebody was quicker
                logger.info("No run of %s: %s", settings.project_id, refusal.sentence)


def sweep() -> None:
    """Send the next run when none is under way, and again what has been silent."""
    _wait_for_the_worker()
    silent = timezone.now() - SILENT_AFTER
    for run in TrainingRun.objects.filter(state=JobState.RUNNING, heartbeat_at__lt=silent):
        _send_again(run.id)
    if not TrainingRun.objects.filter(state=JobState.RUNNING).exists():
        following = _next()
        if following is not None:
            _send_first(following.id)


def stop(run: TrainingRun, *, by: User) -> TrainingRun:
    """Stop a run; raises Conflict ``run_ended``, Unavailable."""
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update(no_key=True).get(id=run.id)
        if run.state not in UNDER_WAY:
            raise Conflict("The run has ended already.", code="run_ended")
        waiting = run.state == JobState.PENDING
        run.stop_wanted = True
        _write(run, f"{by.display_name} stopped it.")
        run.save(update_fields=["stop_wanted", "log"])
        if waiting:
            _fail(run, code="cancelled", message="Stopped before its turn came.")
        audit.run_cancelled(run.project_id, run.id, by=by)
        _tell(run)
    if not waiting:
        worker.ask_to_stop(str(run.id))
    return run


def receive_progress(event: TrainingProgress | EvaluationProgress) -> None:
    """Take note of how far a run has come."""
    is_training = isinstance(event, TrainingProgress)
    run_id = event.run_id if isinstance(event, TrainingProgress) else event.evaluation_id
    stage = Stage.TRAINING if is_training else Stage.EVALUATING
    with transaction.atomic():
        run = _under_way(run_id, stage=stage)
        if run is None:
            return
        run.heartbeat_at = timezone.now()
        if isinstance(event, TrainingProgress):
            if event.step > run.step:
                run.furthest_attempt = run.attempt
            if event.of_steps:
                run.epoch, run.step = event.epoch, event.step
                run.of_steps, run.eta_s = event.of_steps, event.eta_s
            if event.step and event.loss is not None:
                run.curve = _thinned([*run.curve, [event.step, event.loss, event.dice]])
        else:
            if event.done > run.evaluated:
                run.furthest_attempt = run.attempt
            run.evaluated, run.to_evaluate = event.done, event.of
        run.save()
        _tell(run)


def receive_trained(event: TrainingEnded) -> None:
    """The model that came of a run, or why there is none."""
    with transaction.atomic():
        run = _under_way(event.run_id, stage=Stage.TRAINING)
        if run is None:
            return
        run.seconds += event.seconds
        run.step = max(run.step, event.steps)
        if event.state == "stopped" or run.stop_wanted:
            _fail(run, code="cancelled", message=f"Stopped after step {run.step}.")
        elif event.state == "failed" or event.checkpoint is None:
            _fail(run, code=event.code or "worker_failed", message=event.message)
        else:
            run.candidate = _registered(run, event.checkpoint)
            _write(run, event.message or f"Learnt for {run.step} steps.")
            run.stage, run.furthest_attempt = Stage.EVALUATING, run.attempt
            run.opponent = active_model(run.project)
            run.eta_s = None
            run.save()
            _evaluate(run)
        _tell(run)


def receive_evaluated(event: EvaluationEnded) -> None:
    """Judge; and promote, where the project lets the gate."""
    with transaction.atomic():
        run = _under_way(event.evaluation_id, stage=Stage.EVALUATING)
        if run is None:
            return
        if run.stop_wanted:
            _fail(run, code="cancelled", message="Stopped before it was judged.")
        elif event.code:
            _fail(run, code=event.code, message=event.message)
        else:
            try:
                results = EvaluationResults.model_validate_json(storage.get(run.results_key))
            except NotFound:
                return  # sent again after silence
            _judge(run, results)
        _tell(run)


def judge(run: TrainingRun, results: EvaluationResults) -> gate.Judgement:
    """What the gate says of a run's candidate."""
    assert run.candidate is not None, "a run is judged when it has one"
    assert run.opponent is not None, "and somebody to be judged against"
    settings = LearningSettings.of(run.project)
    aliases = dict(run.project.subject_aliases.values_list("pseudonym", "subject__pseudonym"))
    rows = [
        row.model_copy(update={"subject": aliases.get(row.subject, row.subject)})
        for row in results.rows
    ]
    return gate.judge(
        rows,
        candidate=run.candidate.digest,
        opponent=run.opponent.digest,
        trained_on=learnt_from(run.project, run.candidate),
        confidence=settings.confidence,
        tolerance=settings.tolerance,
    )


def _judge(run: TrainingRun, results: EvaluationResults) -> None:
    judgement = judge(run, results)
    run.verdict, run.judgement = judgement.verdict, judgement.model_dump(mode="json")
    _end(run, judgement.sentence)
    if run.verdict == Verdict.BETTER and LearningSettings.of(run.project).automatic:
        assert run.candidate is not None, "it was judged"
        promotion.begin(run.project, run.candidate, change="promote", by=None, run=run)


def _end(run: TrainingRun, sentence: str) -> None:
    assert run.candidate is not None, "a run ends with one"
    run.state, run.finished_at = JobState.DONE, timezone.now()
    _write(run, sentence)
    run.save()
    audit.run_judged(
        run.project_id, run.id, verdict=str(run.verdict), candidate=run.candidate.digest
    )


def _evaluate(run: TrainingRun) -> None:
    """Ask for what the gate judges by; where nobody is held out it speaks at once."""
    assert run.snapshot is not None, "it was frozen for the training"
    assert run.candidate is not None, "it was registered"
    assert run.opponent is not None, "it was chosen"
    held_out = run.snapshot.items.filter(part=Part.HELD_OUT).exists()
    if not held_out or run.candidate == run.opponent:
        _judge(run, EvaluationResults(rows=()))
        return
    worker.send(
        Evaluate(
            evaluation_id=str(run.id),
            attempt=run.attempt,
            model_digests=(run.opponent.digest, run.candidate.digest),
            data=snapshot.stored(run.snapshot),
        )
    )


def _send_first(run_id: UUID) -> None:
    def freeze(run: TrainingRun) -> None:
        run.started_at = timezone.now()
        run.snapshot = snapshot.freeze(run.project, parent=run.parent)
        pairs = snapshot.near_duplicates(run.snapshot, model_digest=run.parent.digest)
        run.snapshot.near_duplicates = pairs
        run.snapshot.save(update_fields=["near_duplicates"])
        if pairs:
            _write(
                run,
                f"{len(pairs)} slices that are learnt from are nearly equal to held-out ones: "
                "look at them.",
            )

    _send(run_id, states=[JobState.PENDING], prepare=freeze)


def _send_again(run_id: UUID) -> None:
    _send(run_id, states=[JobState.RUNNING], prepare=lambda run: None)


def _send(run_id: UUID, *, states: list[JobState], prepare: Callable[[TrainingRun], None]) -> None:
    with transaction.atomic():
        # The project first, as whoever freezes it does.
        project_id = TrainingRun.objects.values_list("project_id", flat=True).get(id=run_id)
        lock(project_id)
        run = (
            TrainingRun.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
            .select_related("project", "parent", "snapshot", "candidate", "opponent")
            .filter(id=run_id, state__in=states)
            .first()
        )
        if run is None:
            return
        if run.stop_wanted:
            _fail(run, code="cancelled", message=f"Stopped after step {run.step}.")
            _tell(run)
            return
        if run.attempt - run.furthest_attempt >= MAX_ATTEMPTS:
            _fail(
                run,
                code="gave_up",
                message=f"It was sent {MAX_ATTEMPTS} times and came no further: see the worker's "
                "log.",
            )
            _tell(run)
            return
        try:
            with transaction.atomic():
                prepare(run)
                assert run.snapshot is not None, "it is frozen when its turn comes"
                data = snapshot.stored(run.snapshot)
        except DelineateError as refusal:
            _fail(run, code=refusal.code, message=refusal.sentence)
            _tell(run)
            return
        run.attempt += 1
        run.state, run.heartbeat_at = JobState.RUNNING, timezone.now()
        _write(run, "Begins." if run.attempt == 1 else "Goes on after a silence.")
        run.save()
        if run.stage == Stage.TRAINING:
            worker.send(
                FineTune(
                    run_id=str(run.id),
                    attempt=run.attempt,
                    parent_digest=run.parent.digest,
                    data=data,
                    recipe=Recipe.model_validate(run.recipe),
                    budget_s=run.budget_s,
                )
            )
        else:
            _evaluate(run)
        _tell(run)


def _next() -> TrainingRun | None:
    """Of the runs that wait, that of the project whose last one began the longest ago."""
    waiting = TrainingRun.objects.filter(state=JobState.PENDING)
    waiting = waiting.annotate(
        last=Max("project__runs__started_at", filter=Q(project__runs__started_at__isnull=False))
    )
    beginning = datetime.min.replace(tzinfo=UTC)
    return min(waiting, key=lambda run: (run.last or beginning, run.created_at), default=None)


def _wait_for_the_worker() -> None:
    """What was sent after the worker was last alive lies in its queue: that is no silence."""
    sent = TrainingRun.objects.filter(state=JobState.RUNNING)
    jobs.mark_sent(worker.unseen(sent, queue=FineTune.queue))


def _under_way(run_id: str, *, stage: Stage) -> TrainingRun | None:
    return (
        TrainingRun.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project", "parent", "snapshot", "candidate", "opponent", "by")
        .filter(id=run_id, state=JobState.RUNNING, stage=stage)
        .first()
    )


def _registered(run: TrainingRun, made: NewCheckpoint) -> ModelVersion:
    return register(
        CheckpointAdded(
            request_id=str(run.id),
            digest=made.digest,
            variant=made.variant,
            image_size=made.image_size,
            adapters=made.adapters,
            preparation=made.preparation,
            trained=True,
            origin=made.origin,
            parent=made.parent,
        ),
        name=f"{run.project.name[:90]}, run {run.number}",
        by=run.by,
    )


def _parent(project: Project, settings: LearningSettings) -> ModelVersion:
    if settings.parent == Parent.DEFAULT:
        default = default_model()
        if default is not None:
            return default
    return active_model(project)


def _budget_s(settings: LearningSettings, *, scheduled: bool) -> float:
    budget = timedelta(minutes=settings.budget_minutes)
    if scheduled and settings.window_from != settings.window_until:
        now = timezone.now()
        until = now.replace(hour=settings.window_until, minute=0, second=0, microsecond=0)
        if until <= now:
            until += timedelta(days=1)
        budget = min(budget, max(until - now, timedelta(minutes=1)))
    return budget.total_seconds()


def _is_open(settings: LearningSettings, now: datetime) -> bool:
    start, end, hour = settings.window_from, settings.window_until, now.astimezone(UTC).hour
    if start == end:
        return True
    return start <= hour < end if start < end else hour >= start or hour < end


def _thinned(curve: list[list[float | None]]) -> list[list[float | None]]:
    return curve if len(curve) <= CURVE_POINTS else [*curve[:-1:2], curve[-1]]


def _write(run: TrainingRun, sentence: str) -> None:
    run.log = [*run.log, [timezone.now().isoformat(timespec="seconds"), sentence]][-LOG_LINES:]


def _fail(run: TrainingRun, *, code: str, message: str) -> None:
    run.state, run.finished_at = JobState.FAILED, timezone.now()
    run.error_code, run.error_message = code[:60], message
    _write(run, message)
    run.save()
    if code != "cancelled":
        audit.run_failed(run.project_id, run.id, code=code)


def _tell(run: TrainingRun) -> None:
    live.tell(
        run.project_id,
        "run",
        id=run.id,
        state=str(run.state),
        stage=str(run.stage),
        step=run.step,
        of_steps=run.of_steps,
        evaluated=run.evaluated,
        to_evaluate=run.to_evaluate,
    )
