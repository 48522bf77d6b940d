"""A fine-tuning or an evaluation of the server's, in a process of its own.

    python -m mlworker.training.job FOLDER

FOLDER holds the command. The learning set's images are written there as the encoder sees them in
serving, only those of the part that is asked for: whoever is held out is not read while a model
learns. How it goes stands in events.jsonl, how it ended in outcome.json; a process that leaves none
has died. TERM ends a fine-tuning after its step, with its state kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from mlworker.app import settings as worker
from mlworker.contract import masks
from mlworker.contract.artifacts import ArtifactError, checkpoint_key, evaluation_key
from mlworker.contract.learning import (
    Evaluate,
    EvaluatedMask,
    EvaluationResults,
    FineTune,
    LearningSet,
    NewCheckpoint,
    Part,
    Recipe,
    StoredSet,
)
from mlworker.inference import geometry
from mlworker.inference.cache import decoding_part, encoding_part, frame_of
from mlworker.inference.encoder import PrecisionError, fastest_dtype
from mlworker.model.checkpoint import Checkpoint, CheckpointError, digest, digest_of_file
from mlworker.storage import ArtifactMissing, Store
from mlworker.training import tracking
from mlworker.training.asking import CLICKS, Model
from mlworker.training.dataset import mask_in_frame
from mlworker.training.evaluate import Plan, Row, evaluate
from mlworker.training.finetune import fine_tune
from mlworker.training.folder import COMMAND, ENOUGH, EVENTS, OUTCOME, RUN, Outcome
from mlworker.training.metrics import Mask
from mlworker.training.progress import Listener
from mlworker.training.samples import DataError, Sample, by_image
from mlworker.training.settings import Settings
from mlworker.training.state import NotKept, StateError, write_whole
from mlworker.training.step import NotFinite

KEEP_EVERY_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1

Job: TypeAdapter[FineTune | Evaluate] = TypeAdapter(FineTune | Evaluate)


def main() -> None:
    """Do the folder's job."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    store = Store(worker.storage_url)
    command = Job.validate_json((folder / COMMAND).read_bytes())
    try:
        if isinstance(command, FineTune):
            outcome = _fine_tune(command, folder, store)
        else:
            outcome = _evaluate(command, folder, store)
    except ArtifactMissing as error:
        outcome = Outcome(code="artifact_missing", message=f"Something is missing: {error}.")
    except (ArtifactError, CheckpointError) as error:
        outcome = Outcome(code="artifact_invalid", message=f"What is stored is of no use: {error}.")
    except (DataError, NotFinite, NotKept, StateError, PrecisionError) as error:
        outcome = Outcome(code=_snake(type(error).__name__), message=_sentence(error))
    except ValidationError as error:
        outcome = Outcome(code="artifact_invalid", message=f"The set is of no use: {error}.")
    except Exception as error:  # whatever it is, its name says more than a death
        traceback.print_exc()
        outcome = Outcome(code="worker_failed", message=f"{type(error).__name__}: {error}.")
    content = outcome.model_dump_json().encode()
    write_whole(folder / OUTCOME, lambda file: file.write(content))


def _fine_tune(command: FineTune, folder: Path, store: Store) -> Outcome:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    with _model(store, command.parent_digest) as path:
        frame = frame_of(Checkpoint(path))
    samples = _Written(folder / "data", store).of(command.data, part="train", frame=frame)
    out = folder / RUN
    listeners = _listeners(command)

    def run(*, resume: bool) -> str:
        with _model(store, command.parent_digest) as parent:
            done = fine_tune(
                parent,
                training=samples,
                out=out,
                settings=_settings(command.recipe),
                resume=resume,
                stop=lambda: bool(asked),
                device=_device(),
                listeners=listeners,
            )
        return done.state

    state_file = out / "last.state"
    try:
        state = run(resume=state_file.exists())
    except StateError:  # of another version, or cut short: what it would take is done again
        state_file.unlink()
        state = run(resume=False)
    steps = _steps_of(out)
    if state == "stopped" and not (folder / ENOUGH).exists():
        return Outcome(is_stopped=True, steps=steps)
    message = "" if state == "finished" else f"Its time was up after step {steps}."
    return Outcome(steps=steps, message=message, checkpoint=_stored(out, command, store))


def _listeners(command: FineTune) -> list[Listener]:
    if not worker.mlflow_tracking_uri:
        return []
    parameters = {"parent": command.parent_digest} | command.recipe.model_dump()
    mlflow = tracking.listener(
        worker.mlflow_tracking_uri, run_id=command.run_id, parameters=parameters
    )
    return [mlflow] if mlflow else []


def _stored(out: Path, command: FineTune, store: Store) -> NewCheckpoint:
    path = out / "last.safetensors"
    data = path.read_bytes()
    name = digest(data)
    if not store.exists(checkpoint_key(name)):
        store.put(checkpoint_key(name), data)
    metadata = Checkpoint(path).metadata
    return NewCheckpoint(
        digest=name,
        variant=metadata.variant,
        image_size=metadata.image_size,
        adapters=metadata.adapters,
        preparation=metadata.preparation,
        origin=metadata.origin,
        parent=command.parent_digest,
        training_data=command.data.digest,
        code_version=metadata.code_version,
    )


def _evaluate(command: Evaluate, folder: Path, store: Store) -> Outcome:
    samples = _Written(folder / "data", store).of(command.data, part=command.part)
    images, models = len(by_image(samples)), len(command.model_digests)
    answers = _Answers()
    excluded = 0
    for number, model_digest in enumerate(command.model_digests):
        with _model(store, model_digest) as path:
            checkpoint = Checkpoint(path)
            model = Model(
                model_digest,
                encoding_part(checkpoint, precision=worker.precision),
                decoding_part(checkpoint),
            )
        done = evaluate(
            model,
            samples,
            plan=Plan(protocols=("box", CLICKS), clicks=command.clicks),
            worst=0,
            progress=_telling(folder, before=number * images, of=images * models),
            seen=answers.take,
        )
        excluded = len(done.excluded)
    results = EvaluationResults(rows=tuple(answers.rows()), excluded=excluded)
    store.put(evaluation_key(command.evaluation_id), results.model_dump_json().encode())
    return Outcome()


@contextmanager
def _model(store: Store, model_digest: str) -> Iterator[Path]:
    """A checkpoint's file, which is what it is called; raises ArtifactError."""
    with store.as_file(checkpoint_key(model_digest)) as path:
        if digest_of_file(path) != model_digest:
            raise ArtifactError(f"the checkpoint {model_digest[:8]} is not what was stored")
        yield path


@dataclass
class _Answers:
    """Both answers to each mask, by model."""

    _boxes: dict[tuple[str, str], tuple[Row, masks.RunLengths]] = field(default_factory=dict)
    _clicks: dict[tuple[str, str], Row] = field(default_factory=dict)

    def take(self, row: Row, predicted: Mask) -> None:
        key = (row.model, row.mask)
        if row.protocol == CLICKS:
            self._clicks[key] = row
        else:
            self._boxes[key] = (row, masks.encode(predicted))

    def rows(self) -> list[EvaluatedMask]:
        found = []
        for (model, mask), (row, answer) in self._boxes.items():
            slice_id = Path(row.image).stem
            found.append(
                EvaluatedMask(
                    revision_id=Path(mask).stem,
                    slice_id=slice_id,
                    model_digest=model,
                    label=row.label,
                    subject=row.subject,
                    dice=row.scores.dice,
                    mask=answer,
                    dice_after=self._clicks[model, mask].dice_after,
                )
            )
        return found


class _Written:
    """A learning set as files; names of files are ids."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store

    def of(
        self, data: StoredSet, *, part: Part, frame: geometry.Frame | None = None
    ) -> list[Sample]:
        """The masks of one part, with their images; raises ArtifactError, DataError.

        ``frame``: without those of which nothing is left in it.
        """
        content = self._store.get(data.key)
        if hashlib.sha256(content).hexdigest() != data.digest:
            raise ArtifactError("the learning set is not what was stored")
        items = LearningSet.model_validate_json(content).items
        self._folder.mkdir(exist_ok=True)
        samples = []
        for item in (item for item in items if item.part == part):
            image = self._folder / f"{item.slice_id}.png"
            rgb = geometry.to_rgb(self._store.get_pixels(item.image), item.image)
            Image.fromarray(rgb).save(image, compress_level=1)
            for each in item.masks:
                drawn = masks.decode(each.mask)
                # "The label is not here" shows nothing to ask for, nor does what is too small.
                seen = drawn if frame is None else mask_in_frame(drawn, frame)
                if not seen.any():
                    continue
                path = self._folder / f"{each.revision_id}.png"
                Image.fromarray(drawn.astype(np.uint8) * 255).save(path, compress_level=1)
                samples.append(
                    Sample(
                        image=image,
                        mask=path,
                        label=each.label,
                        modality=item.modality,
                        subject=item.subject,
                    )
                )
        if not samples:
            raise DataError("no mask of the set is for this")
        return samples


def _settings(recipe: Recipe) -> Settings:
    return Settings(
        trainable=recipe.trainable,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        halved_after=recipe.halved_after,
        warm_up=recipe.warm_up,
        blend=recipe.blend,
        most_steps=recipe.most_steps,
        images=recipe.images,
        masks=recipe.masks,
        corrections=recipe.corrections,
        augment=recipe.augment,
        balance=recipe.balance,
        seed=recipe.seed,
        precision="bfloat16" if _learns_in_bfloat16() else "float32",
        threads=worker.threads,
        keep_every_s=KEEP_EVERY_S,
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _learns_in_bfloat16() -> bool:
    """Where it is faster, unless somebody wants float32 of this worker."""
    return worker.precision != "float32" and fastest_dtype(_device()) != torch.float32


def _telling(folder: Path, *, before: int, of: int) -> Callable[[int, int], None]:
    def tell(done: int, _of: int) -> None:
        line = json.dumps({"event": "evaluated", "done": before + done, "of": of})
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return tell


def _steps_of(out: Path) -> int:
    status: dict[str, Any] = json.loads((out / "status.json").read_text(encoding="utf-8"))
    return int(status.get("step") or 0)


def _die_with(parent: int) -> None:
    """Whatever kills the worker ends this process, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            sys.exit(1)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


if __name__ == "__main__":
    main()
