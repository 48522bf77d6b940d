"""`mlworker pretrain`: train a small model from scratch on curated data."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import torch

from mlworker.model.checkpoint import Metadata, code_version, digest_of_file, pack
from mlworker.training import processes
from mlworker.training.pretrain import Recipe, Run, train
from mlworker.training.samples import read_image2label
from mlworker.training.state import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--data", type=Path, required=True, help="folder that curate wrote")
    parser.add_argument("--recipe", type=Path, help="JSON; the default recipe without it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and models")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--from", dest="origin", type=Path, help="a state of another run")


def run(arguments: argparse.Namespace) -> int:
    """Begin, or go on where the folder's state ends."""
    # Numbers too small to matter cost a hundred times the others. It holds for the whole process,
    # so it is put back: with it, SciPy's trees of points never come to an end.
    torch.set_flush_denormal(True)
    try:
        with processes.joined(torch.device("cpu")):
            _train(arguments)
    finally:
        torch.set_flush_denormal(False)
    return 0


def _train(arguments: argparse.Namespace) -> None:
    text = arguments.recipe.read_text() if arguments.recipe else "{}"
    recipe = Recipe.model_validate_json(text)
    listed = arguments.data / "image2label_train.json"
    samples = read_image2label(listed, root=arguments.data)
    training = Run(recipe, samples)
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = arguments.out / "last.state"
    if state.exists():
        training.load(torch.load(state, weights_only=True))
    elif arguments.origin:
        training.load(torch.load(arguments.origin, weights_only=True))

    def keep(training: Run) -> None:
        if processes.rank() != 0:
            return
        write_whole(state, lambda file: torch.save(training.state(), file))
        if training.is_about_to_fall:
            shutil.copyfile(state, arguments.out / "before_fall.state")
        metadata = Metadata(
            variant=recipe.variant,
            image_size=256,
            adapters=False,
            preparation=2,
            trained=True,
            origin=f"from scratch, {training.progress.step} steps, seed {recipe.seed}",
            training_data=digest_of_file(listed),
            code_version=code_version(),
        )
        data = pack(training.average.state_dict(), metadata, precision=torch.float16)
        write_whole(arguments.out / "average.safetensors", lambda file: file.write(data))

    train(
        training,
        until=time.monotonic() + arguments.minutes * 60,
        keep=keep,
        say=lambda line: (
            None if processes.rank() else print(time.strftime("%H:%M:%S"), line, flush=True)
        ),
    )
