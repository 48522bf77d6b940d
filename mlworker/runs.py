"""Fine-tunings and evaluations beside the worker's queue: one at a time, watched, in a child.

The queue stays free for what is quick, such as reading a checkpoint. A command is taken, and what
comes of it is told by events; whoever waits for its turn says so every few seconds, too. A run's
state is copied into the store whenever the child has kept one, so that another worker on another
machine goes on from there. A child that dies is started once more; one that dies again has failed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from mlworker.contract.artifacts import evaluation_key, run_prefix, stop_key
from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationProgress,
    FineTune,
    LearningEvent,
    TrainingEnded,
    TrainingProgress,
)
from mlworker.storage import ArtifactMissing, Store
from mlworker.training.folder import COMMAND, ENOUGH, EVENTS, OUTCOME, RUN, Outcome

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5
TELL_EVERY_S: Final = 2.0
WAITING_TOLD_EVERY_S: Final = 5.0
# Of nothing told: reading and checking a large set takes minutes, a step of a large model one.
HANGS_AFTER_S: Final = 900.0
DEATHS: Final = 2
STOPS_WITHIN_S: Final = 60.0

STATE: Final = "last.state"
USED: Final = "used.json"

Job = FineTune | Evaluate


@dataclass
class Runs:
    """The runs of this process; ``tell`` sends an event, ``connection`` knows who shall stop."""

    store: Store
    connection: redis.Redis
    tell: Callable[[LearningEvent], None]
    _jobs: deque[Job] = field(default_factory=deque)  # the first one is at work
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None
    _ends: bool = False

    @property
    def folders(self) -> str:
        """How the folders of this store's runs begin; one worker has them."""
        return f"delineate-run-{hashlib.sha256(self.store.url.encode()).hexdigest()[:8]}-"

    def take(self, job: Job) -> None:
        """Do it after those that came before; one that is here already is only numbered anew."""
        with self._changed:
            for place, known in enumerate(self._jobs):
                if _id_of(known) == _id_of(job):
                    self._jobs[place] = job
                    return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="runs", daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self) -> None:
        """The worker ends: what runs keeps its state, and goes on in the next worker."""
        self._ends = True
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(STOPS_WITHIN_S)

    def _work(self) -> None:
        # Of a worker that was killed: what lies there are patients' images.
        for left in Path(tempfile.gettempdir()).glob(f"{self.folders}*"):
            shutil.rmtree(left, ignore_errors=True)
        while not self._ends:
            with self._changed:
                while not self._jobs and not self._ends:
                    self._changed.wait()
                if self._ends:
                    return
                job = self._jobs[0]
            watched = _Watched(self, job)
            try:
                watched.to_the_end()
            except Exception:  # its row is silent, and it is sent again
                logger.exception("%s %s could not be carried out", job.kind, _id_of(job))
            with self._changed:
                # One that was sent again after the last word hears it once more.
                if watched.answered is None or self._jobs[0] == watched.answered:
                    self._jobs.popleft()

    def current(self, job: Job) -> Job:
        """The job with the number it was last sent with."""
        with self._changed:
            return next((known for known in self._jobs if _id_of(known) == _id_of(job)), job)

    def waiting(self) -> list[Job]:
        """Those whose turn has not come."""
        with self._changed:
            return list(self._jobs)[1:]

    @property
    def ends(self) -> bool:
        """Whether the worker ends."""
        return self._ends


class _Watched:
    """One job's child, from its start to its last word."""

    def __init__(self, runs: Runs, job: Job) -> None:
        self._runs, self._job = runs, job
        self._prefix = run_prefix(_id_of(job))
        self.answered: Job | None = None
        self._used_s = 0.0
        self._read = 0  # bytes of events.jsonl
        self._losses: list[float] = []
        self._dices: list[float] = []
        self._last: dict[str, Any] = {}
        self._told_at = 0.0
        self._waiting_told_at = 0.0

    def to_the_end(self) -> None:
        if (said := self._said_before()) is not None:
            self._tell_end(said)
            return
        self._tell_progress()
        with tempfile.TemporaryDirectory(prefix=self._runs.folders) as name:
            folder = Path(name)
            (folder / RUN).mkdir()
            (folder / COMMAND).write_text(self._job.model_dump_json(), encoding="utf-8")
            self._fetch_state(folder)
            self._events = folder / (
                f"{RUN}/{EVENTS}" if isinstance(self._job, FineTune) else EVENTS
            )
            self._read = self._events.stat().st_size if self._events.exists() else 0
            for _ in range(DEATHS):
                ended = self._watch(folder)
                if ended is not None or self._runs.ends:
                    break
                logger.warning("The trainer of %s died", _id_of(self._job))
            self._keep(folder)
            if self._runs.ends and (ended is None or ended.is_stopped):
                return
            self._tell_end(
                ended
                or Outcome(
                    code="trainer_died",
                    message="The process that did it ended twice without a word: the machine may "
                    "be short of memory. The worker's log may say more.",
                )
            )

    def _watch(self, folder: Path) -> Outcome | None:
        """The child's last word; None when it died."""
        began = time.monotonic()
        before = self._used_s
        heard_at, size = began, -1
        self._last = {}
        child = subprocess.Popen(
            [sys.executable, "-m", "mlworker.training.job", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            process_group=0,  # in our session, and so as nice as we are
        )
        stop_told = False
        try:
            while child.poll() is None:
                time.sleep(LOOK_EVERY_S)
                now = time.monotonic()
                self._used_s = before + now - began
                self._hear(folder)
                if self._read != size:
                    heard_at, size = now, self._read
                if not stop_told and self._shall_stop(folder):
                    stop_told = True
                    child.terminate()
                if now - heard_at > HANGS_AFTER_S:
                    logger.error("The trainer of %s hangs", _id_of(self._job))
                    child.kill()
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        self._hear(folder)
        path = folder / OUTCOME
        if not path.exists():
            # Who is told to stop while it starts dies of it.
            return Outcome(is_stopped=True, steps=self._step) if stop_told else None
        outcome = Outcome.model_validate_json(path.read_bytes())
        if outcome.is_stopped and not stop_told:  # by somebody else's TERM, which is a death to us
            path.unlink()
            return None
        return outcome

    def _shall_stop(self, folder: Path) -> bool:
        if self._runs.ends:
            return True
        budget_s = self._job.budget_s if isinstance(self._job, FineTune) else None
        if budget_s is not None and self._used_s > budget_s and self._step:
            (folder / ENOUGH).touch()
            return True
        try:
            return bool(self._runs.connection.exists(stop_key(_id_of(self._job))))
        except redis.RedisError:
            return False  # asked again in a moment

    def _hear(self, folder: Path) -> None:
        """What the child has told since; passed on now and then."""
        has_kept = has_news = False
        if self._events.exists():
            with self._events.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.splitlines():
                event = json.loads(line)
                has_news = True
                match event["event"]:
                    case "step":
                        self._last = event
                        self._losses.append(event["loss"] or 0.0)
                        self._dices.append(event["dice"] or 0.0)
                    case "started":
                        self._last = {"of_steps": event.get("of_steps", 0)}
                    case "evaluated":
                        self._last = event
                    case "kept":
                        has_kept = True
        if has_kept:
            try:
                self._keep(folder)
            except OSError as error:  # the next time, perhaps
                logger.warning("The state of %s could not be kept: %s", _id_of(self._job), error)
        due_s = TELL_EVERY_S if has_news or self._losses else WAITING_TOLD_EVERY_S
        if time.monotonic() - self._told_at >= due_s:
            self._tell_progress()

    def _tell_progress(self) -> None:
        self._told_at = time.monotonic()
        job = self._runs.current(self._job)
        last = self._last
        if isinstance(job, FineTune):
            self._runs.tell(
                TrainingProgress(
                    run_id=job.run_id,
                    attempt=job.attempt,
                    epoch=last.get("epoch", 0),
                    step=last.get("step", 0),
                    of_steps=last.get("of_steps", 0),
                    loss=_mean(self._losses),
                    dice=_mean(self._dices),
                    eta_s=last.get("eta_s"),
                )
            )
            self._losses, self._dices = [], []
        else:
            self._runs.tell(_evaluating(job, done=last.get("done", 0), of=last.get("of", 0)))
        if self._told_at - self._waiting_told_at >= WAITING_TOLD_EVERY_S:
            self._waiting_told_at = self._told_at
            for waiting in self._runs.waiting():
                self._runs.tell(_alive(waiting))

    def _tell_end(self, ended: Outcome) -> None:
        job = self.answered = self._runs.current(self._job)
        if isinstance(job, Evaluate):
            self._runs.tell(
                EvaluationEnded(
                    evaluation_id=job.evaluation_id,
                    attempt=job.attempt,
                    code=ended.code or ("stopped" if ended.is_stopped else ""),
                    message=ended.message,
                )
            )
            return
        state = "failed" if ended.code else "stopped" if ended.is_stopped else "finished"
        if state == "finished":
            self._runs.store.put(self._prefix + OUTCOME, ended.model_dump_json().encode())
            self._runs.store.remove(self._prefix + STATE)
        self._runs.tell(
            TrainingEnded.model_validate(
                {
                    "run_id": job.run_id,
                    "attempt": job.attempt,
                    "state": state,
                    "code": ended.code,
                    "message": ended.message,
                    "steps": ended.steps,
                    "seconds": self._used_s,
                    "checkpoint": ended.checkpoint,
                }
            )
        )

    def _said_before(self) -> Outcome | None:
        """The last word of a job that is done, if that was not heard."""
        store = self._runs.store
        if isinstance(self._job, Evaluate):
            done = store.exists(evaluation_key(self._job.evaluation_id))
            return Outcome() if done else None
        try:
            said = Outcome.model_validate_json(store.get(self._prefix + OUTCOME))
        except ArtifactMissing:
            return None
        self._used_s = self._used_before()
        return said

    def _used_before(self) -> float:
        """Seconds of the attempts before this one."""
        try:
            used = json.loads(self._runs.store.get(self._prefix + USED))
            return float(used["seconds"])
        except (ArtifactMissing, ValueError, KeyError, TypeError):
            return 0.0

    @property
    def _step(self) -> int:
        return int(self._last.get("step", 0))

    def _fetch_state(self, folder: Path) -> None:
        """What an attempt before this one kept, perhaps on another machine."""
        if not isinstance(self._job, FineTune):
            return
        for name in (STATE, EVENTS):
            try:
                with self._runs.store.as_file(self._prefix + name) as path:
                    (folder / RUN / name).write_bytes(path.read_bytes())
            except ArtifactMissing:
                continue
        self._used_s = self._used_before()

    def _keep(self, folder: Path) -> None:
        """The run's state, its log and its curves, in the store."""
        if not isinstance(self._job, FineTune):
            return
        run = folder / RUN
        curves = sorted((run / "tensorboard").rglob("*")) if (run / "tensorboard").exists() else []
        for path in (run / STATE, run / EVENTS, *curves):
            if path.is_file():
                key = f"{self._prefix}{path.relative_to(run).as_posix()}"
                self._runs.store.put(key, path.read_bytes())
        used = json.dumps({"seconds": self._used_s}).encode()
        self._runs.store.put(self._prefix + USED, used)


def _id_of(job: Job) -> str:
    return job.run_id if isinstance(job, FineTune) else job.evaluation_id


def _alive(job: Job) -> LearningEvent:
    if isinstance(job, FineTune):
        return TrainingProgress(run_id=job.run_id, attempt=job.attempt)
    return _evaluating(job, done=0, of=0)


def _evaluating(job: Evaluate, *, done: int, of: int) -> EvaluationProgress:
    return EvaluationProgress(
        evaluation_id=job.evaluation_id, attempt=job.attempt, done=done, of=of
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
