"""`mlworker convert`: a checkpoint of anybody's into one of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from mlworker.contract.messages import AdapterChoice
from mlworker.model.checkpoint import Checkpoint, digest
from mlworker.model.foreign import SAM_SIZE, converted
from mlworker.model.sam_med2d import IMAGE_SIZE
from mlworker.training.state import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("file", type=Path, help="SAM-Med2D's, SAM's, fine-tuned from them, or ours")
    parser.add_argument("--to", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument(
        "--adapters",
        choices=get_args(AdapterChoice),
        help="fresh ones, those of the file, or none; without it those of the file, and fresh ones "
        f"for an original SAM that is brought to {IMAGE_SIZE} px",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        choices=(IMAGE_SIZE, SAM_SIZE),
        help=f"pixels; {IMAGE_SIZE} without it, and what it is for a checkpoint of ours",
    )
    parser.add_argument("--half", action="store_true", help="store weights in half precision")


def run(arguments: argparse.Namespace) -> int:
    """Write the checkpoint and say what it is."""
    data = converted(
        arguments.file,
        adapters=arguments.adapters,
        image_size=arguments.image_size,
        half=arguments.half,
    )
    write_whole(arguments.to, lambda file: file.write(data))
    metadata = Checkpoint(arguments.to).metadata
    print(f"{arguments.to}: {digest(data)}")
    print(f"{metadata.variant}, {metadata.image_size} px: {metadata.origin}")
    return 0
