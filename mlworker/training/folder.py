"""What a job's folder holds: how the worker and its child speak with each other."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from mlworker.contract.learning import NewCheckpoint

COMMAND: Final = "command.json"
OUTCOME: Final = "outcome.json"
EVENTS: Final = "events.jsonl"  # of an evaluation; that of a run lies in its own folder
RUN: Final = "run"  # the folder of `fine_tune`, in ours
ENOUGH: Final = "enough"  # a file: what is there by now is what was wanted


class Outcome(BaseModel):
    """How a job ended; ``code`` is empty when it did what it was asked for."""

    code: str = ""
    message: str = ""
    is_stopped: bool = False
    steps: int = 0
    checkpoint: NewCheckpoint | None = None
