"""`mlworker train`: fine-tune a checkpoint on one's own masks."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import torch

from mlworker.training import processes
from mlworker.training.dataset import read_manifest
from mlworker.training.finetune import fine_tune
from mlworker.training.samples import Sample, read_image2label
from mlworker.training.settings import Settings, read_settings

STOPPED = 128 + signal.SIGTERM  # as a shell says it; nothing is lost, --resume goes on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="image2label_train.json, as SAM-Med2D's")
    data.add_argument("--manifest", type=Path, help="a training manifest (JSON)")
    parser.add_argument("--root", type=Path, help="folder of the files named (default: the list's)")
    parser.add_argument("--validation", type=Path, help="a list as --data, to choose the best by")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the model to begin with")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that it writes")
    parser.add_argument("--settings", type=Path, help="JSON; the published procedure without it")
    parser.add_argument("--resume", action="store_true", help="go on where the folder's state ends")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")


def run(arguments: argparse.Namespace) -> int:
    """Fine-tune; TERM and INT end it after the step, with everything kept."""
    settings = read_settings(arguments.settings) if arguments.settings else Settings()
    training, validation = _samples(arguments)
    asked_to_stop: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked_to_stop.append(number)

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    device = _device(arguments.device)
    try:
        with processes.joined(device):
            outcome = fine_tune(
                arguments.checkpoint,
                training=training,
                validation=validation,
                out=arguments.out,
                settings=settings,
                resume=arguments.resume,
                stop=lambda: bool(asked_to_stop),
                device=device,
            )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"{outcome.state} after {outcome.step} steps", file=sys.stderr)
    return 0 if outcome.state == "finished" else STOPPED


def _samples(arguments: argparse.Namespace) -> tuple[list[Sample], list[Sample]]:
    listed = arguments.manifest or arguments.data
    root = arguments.root or listed.parent
    if arguments.manifest:
        return read_manifest(listed, root=root)
    training = read_image2label(listed, root=root)
    if not arguments.validation:
        return training, []
    return training, read_image2label(arguments.validation, root=root)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda":
        device = torch.device("cuda", processes.place_on_machine() or device.index or 0)
        torch.cuda.set_device(device)
    return device
