"""What a run tells: a line per event, its status, and curves for TensorBoard.

``events.jsonl`` has everything in order; ``status.json`` what is true now. A run that ends, however
it ends, leaves a final state: ``finished``, ``stopped`` (can be resumed) or ``failed`` with a code.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from tensorboardX import SummaryWriter

from mlworker.training.state import NotKept, write_whole

State = Literal["running", "finished", "stopped", "failed"]
Value = str | int | float | bool | None | list[str]
Listener = Callable[[str, Mapping[str, Value]], object]  # of an event by name

_HASTE: Final = 0.05  # of a step's time in the estimate of what is left: slow enough to be steady


class Progress:
    """The teller of one run, in its folder; it adds to what an earlier part of the run told.

    ``listeners`` hear each event as it is written.
    """

    def __init__(self, folder: Path, *, listeners: Iterable[Listener] = ()) -> None:
        self._folder = folder
        self._listeners = tuple(listeners)
        self._curves = SummaryWriter(str(folder / "tensorboard"))
        self._step_s: float | None = None

    def say(self, event: str, **values: Value) -> None:
        """A line in events.jsonl; raises NotKept where the disk is full."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **_finite(values)})
        try:
            with (self._folder / "events.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise NotKept(f"events.jsonl could not be written: {error}") from error
        for listen in self._listeners:
            listen(event, values)

    def step(
        self,
        *,
        epoch: int,
        step: int,
        of_steps: int,
        loss: float,
        dice: float,
        learning_rate: float,
        took_s: float,
    ) -> None:
        """A step has ended (``epoch`` and ``step`` counted from 1)."""
        before = self._step_s
        self._step_s = took_s if before is None else before + _HASTE * (took_s - before)
        eta_s = round((of_steps - step) * self._step_s, 1)
        told: dict[str, Value] = {
            "epoch": epoch,
            "step": step,
            "of_steps": of_steps,
            "loss": loss,
            "dice": dice,
            "eta_s": eta_s,
        }
        self.say("step", **told, learning_rate=learning_rate, took_s=round(took_s, 3))
        for name, value in (("loss", loss), ("dice", dice), ("learning_rate", learning_rate)):
            self._curves.add_scalar(f"train/{name}", value, step)
        self.status("running", **told)

    def epoch(self, *, epoch: int, step: int, **means: float) -> None:
        """An epoch has ended, with these means."""
        self.say("epoch", epoch=epoch, step=step, **means)
        for name, value in means.items():
            self._curves.add_scalar(f"epoch/{name}", value, epoch)

    def status(self, state: State, **values: Value) -> None:
        """Replace status.json."""
        content = json.dumps({"state": state, **_finite(values)}, indent=1) + "\n"
        write_whole(self._folder / "status.json", lambda file: file.write(content.encode()))

    def end(self, state: State, **values: Value) -> None:
        """The final state, in both files; nothing is told afterwards.

        Where even these few bytes have no room, the error that ended the run is what is heard.
        """
        try:
            self.say(state, **values)
            self.status(state, **values)
            self._curves.close()
        except NotKept:
            if state != "failed":
                raise


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    # JSON has no NaN; null says as much, and every reader takes it.
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
