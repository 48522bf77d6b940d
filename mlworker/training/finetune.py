"""Fine-tuning a checkpoint: step after step, kept, told, and resumed where it ended.

What a step does is step.py's. Everything that chance decides is drawn from the seed, the step and
the place in the batch, so the state is the weights, the optimiser's moments and a few numbers; a
run that goes on from it ends with the same bits as one that was never stopped.

An epoch's last batch is filled up from the epoch's beginning; the published code has a smaller one.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from mlworker.inference.encoder import Encoding
from mlworker.inference.geometry import Frame
from mlworker.inference.predictor import Predictor
from mlworker.model.adapter import add_adapters
from mlworker.model.checkpoint import Checkpoint, code_version, digest_of_file, pack
from mlworker.model.sam_med2d import ENCODERS, SamMed2D
from mlworker.training import processes
from mlworker.training.asking import Model
from mlworker.training.dataset import Dataset, survey
from mlworker.training.evaluate import Plan, evaluate
from mlworker.training.progress import Listener, Progress
from mlworker.training.samples import Sample, refuse_shared_subjects
from mlworker.training.settings import FREE_TO_CHANGE, Settings
from mlworker.training.state import load_state, save_state, write_whole
from mlworker.training.step import Part, Trainer

STATE: Final = "last.state"
_ASKED: Final = 2  # apart from what the dataset draws with the same seed


class RunExists(ValueError):
    """The folder holds a run, which would be overwritten."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: through all epochs, or because it was asked to."""

    state: Literal["finished", "stopped"]
    step: int
    best: float | None  # see Where


@dataclass
class Where:
    """Where a run is."""

    step: int = 0  # steps done
    losses: float = 0.0  # sums over the epoch so far
    dices: float = 0.0
    # Of the epochs' scores, which are the validation's Dice, or the negative mean loss without one.
    best: float | None = None


def fine_tune(
    parent: Path,
    *,
    training: Sequence[Sample],
    validation: Sequence[Sample] = (),
    out: Path,
    settings: Settings,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
    listeners: Sequence[Listener] = (),
) -> Outcome:
    """Fine-tune the checkpoint in a file until all epochs are through, or ``stop`` says so.

    ``out`` gets last.state, last.safetensors, best.safetensors, events.jsonl, status.json and
    TensorBoard files; ``listeners`` hear of each event. Raises DataError, CheckpointError,
    RunExists, StateError, NotFinite, NotKept; each leaves a final state in status.json, and what
    was kept before.
    """
    if (out / STATE).exists() and not resume:
        raise RunExists(f"{out} holds a run: resume it, or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress(out, listeners=listeners) if processes.rank() == 0 else None
    try:
        run = _Run(
            parent,
            training=training,
            validation=validation,
            out=out,
            settings=settings,
            device=device or torch.device("cpu"),
            progress=progress,
        )
        if resume:
            run.go_on()
        outcome = run.until(stop)
    except Exception as error:
        if progress:
            progress.end("failed", code=type(error).__name__, message=str(error))
        raise
    if progress:
        progress.end(outcome.state, step=outcome.step, best=outcome.best)
    return outcome


class _Run:
    def __init__(
        self,
        parent: Path,
        *,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        out: Path,
        settings: Settings,
        device: torch.device,
        progress: Progress | None,
    ) -> None:
        self._out = out
        self._settings = settings
        self._progress = progress
        self._validation = validation
        refuse_shared_subjects(training, validation)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        checkpoint = Checkpoint(parent)
        metadata = checkpoint.metadata
        self._frame = Frame(preparation=metadata.preparation, size=metadata.image_size)
        seen = survey([*training, *validation], frame=self._frame)
        self._data = Dataset(
            training,
            frame=self._frame,
            seed=settings.seed,
            augmented=settings.augment,
            balanced=settings.balance,
        )
        self._identity = {
            "parent": digest_of_file(parent),
            "data": seen.digest,
            "settings": settings.model_dump(mode="json", exclude=set(FREE_TO_CHANGE)),
            "processes": processes.count(),
        }
        model = SamMed2D(
            image_encoder=checkpoint.image_encoder(),
            prompt_encoder=checkpoint.prompt_encoder(),
            mask_decoder=checkpoint.mask_decoder(),
        )
        if settings.trainable == "adapters" and not metadata.adapters:
            _add_silent_adapters(model, dim=ENCODERS[metadata.variant].dim, seed=settings.seed)
            metadata = metadata.model_copy(update={"adapters": True})
        self._metadata = metadata
        self._trainer = Trainer(model, settings=settings, frame=self._frame, device=device)
        self._where = Where()
        images_of_step = settings.images * settings.accumulate * processes.count()
        self._steps_of_epoch = -(-len(self._data) // images_of_step)
        self._say(
            "started",
            images=seen.images,
            masks=seen.masks,
            of_steps=self._of_steps,
            single_labels=seen.single_labels,
            data=seen.digest,
            parent=str(self._identity["parent"]),
        )

    def go_on(self) -> None:
        """Take up the kept state; a run that was killed before there was one begins anew."""
        path = self._out / STATE
        if path.exists():
            state = load_state(path, identity=self._identity)
            self._trainer.load(state["trainer"])
            self._where = Where(**state["where"])
        self._say("resumed", step=self._where.step)

    def until(self, stop: Callable[[], bool]) -> Outcome:
        """Steps, and what follows an epoch."""
        where = self._where
        kept = time.monotonic()
        if where.step == self._of_steps:  # it was killed between its last state and its weights
            self._write("last")
        while where.step < self._of_steps:
            self._step()
            ended = where.step % self._steps_of_epoch == 0
            if ended:
                self._end_epoch()
            stopped = processes.any_of(claim=stop())
            last = stopped or where.step == self._of_steps
            if ended or last or time.monotonic() - kept >= self._settings.keep_every_s:
                self._keep()
                kept = time.monotonic()
            if ended or last:
                self._write("last")
            if stopped and where.step < self._of_steps:
                return Outcome("stopped", where.step, where.best)
        return Outcome("finished", where.step, where.best)

    def _step(self) -> None:
        began = time.monotonic()
        where, settings = self._where, self._settings
        step = where.step
        epoch, within = divmod(step, self._steps_of_epoch)
        rate = settings.rate(epoch=epoch, step=step)
        parts = [
            self._part(part, epoch=epoch, within=within) for part in range(settings.accumulate)
        ]
        chance = np.random.default_rng((settings.seed, _ASKED, step))
        loss, dice = self._trainer.step(parts, chance=chance, rate=rate)
        where.step += 1
        where.losses += loss
        where.dices += dice
        if self._progress:
            self._progress.step(
                epoch=epoch + 1,
                step=where.step,
                of_steps=self._of_steps,
                loss=loss,
                dice=dice,
                learning_rate=rate,
                took_s=time.monotonic() - began,
            )

    def _part(self, part: int, *, epoch: int, within: int) -> Part:
        """This process's images of a step, or of a part of it whose gradients are accumulated."""
        settings, step = self._settings, self._where.step
        number = (within * settings.accumulate + part) * processes.count() + processes.rank()
        places = range(number * settings.images, (number + 1) * settings.images)
        return Part(
            images=[
                self._data.draw(epoch=epoch, step=step, place=place, masks=settings.masks)
                for place in places
            ],
            chances=[
                np.random.default_rng((settings.seed, _ASKED, step, place)) for place in places
            ],
        )

    def _end_epoch(self) -> None:
        where = self._where
        means = {
            "loss": where.losses / self._steps_of_epoch,
            "dice": where.dices / self._steps_of_epoch,
        }
        score = -means["loss"]
        if self._validation:
            score = means["validation_dice"] = processes.of_first(self._validated)
        where.losses = where.dices = 0.0
        if self._progress:
            epoch = where.step // self._steps_of_epoch
            self._progress.epoch(epoch=epoch, step=where.step, **means)
        if where.best is None or score > where.best:
            where.best = score
            self._write("best", score=means.get("validation_dice"))

    def _validated(self) -> float:
        """The mean Dice from a box and from a point, each image encoded once."""
        with self._trainer.as_kept() as model:
            # Decoding is served by the CPU, wherever the training runs.
            prompt_encoder, mask_decoder = (
                copy.deepcopy(part).cpu() for part in (model.prompt_encoder, model.mask_decoder)
            )
            done = evaluate(
                Model(
                    "candidate",
                    Encoding(model.image_encoder, self._frame),
                    Predictor(prompt_encoder, mask_decoder, frame=self._frame),
                ),
                self._validation,
                plan=Plan(protocols=("box", "1-point"), seed=self._settings.seed),
                worst=0,
            )
        return float(np.mean([row.scores.dice for row in done.rows]))

    def _keep(self) -> None:
        self._trainer.refuse_not_finite()
        if self._progress:
            state = {"trainer": self._trainer.state(), "where": asdict(self._where)}
            save_state(self._out / STATE, state, identity=self._identity)
            self._say("kept", step=self._where.step)

    def _write(self, name: str, *, score: float | None = None) -> None:
        self._trainer.refuse_not_finite()
        if not self._progress:
            return
        settings = self._settings
        metadata = self._metadata.model_copy(
            update={
                "trained": True,
                "origin": f"fine-tuned ({settings.trainable}), {self._where.step} steps, "
                f"settings {settings.model_dump_json(exclude_defaults=True)}",
                "parent": self._identity["parent"],
                "training_data": self._identity["data"],
                "code_version": code_version(),
                "metrics": {"validation_dice": score} if score is not None else {},
            }
        )
        with self._trainer.as_kept() as model:
            data = pack(model.state_dict(), metadata)
        write_whole(self._out / f"{name}.safetensors", lambda file: file.write(data))

    def _say(self, event: str, **values: Any) -> None:
        if self._progress:
            self._progress.say(event, **values)

    @property
    def _of_steps(self) -> int:
        steps = self._steps_of_epoch * self._settings.epochs
        return min(steps, self._settings.most_steps or steps)


def _add_silent_adapters(model: SamMed2D, *, dim: int, seed: int) -> None:
    """Fresh adapters that add nothing yet: the model begins as what its parent was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_adapters(model.image_encoder, dim=dim)
    for key, parameter in model.image_encoder.named_parameters():
        if ".Adapter.norm." in key:
            torch.nn.init.zeros_(parameter)
