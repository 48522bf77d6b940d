"""`mlworker convert`: a checkpoint of anybody's into one of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import torch

from mlworker.contract.messages import AdapterChoice
from mlworker.model.checkpoint import Checkpoint, CheckpointError, digest, digest_of_file, pack
from mlworker.model.foreign import SAM_SIZE, converted, read_foreign
from mlworker.model.sam_med2d import IMAGE_SIZE
from mlworker.training.samples import json_object
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
    parser.add_argument(
        "--evaluated",
        type=Path,
        metavar="RESULTS.JSON",
        help="what `mlworker evaluate` found of this very file: written into the checkpoint",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the checkpoint and say what it is."""
    choices = {"adapters": arguments.adapters, "image_size": arguments.image_size}
    if arguments.evaluated:
        state, metadata = read_foreign(arguments.file, **choices)
        metrics = _metrics(arguments.evaluated, of=digest_of_file(arguments.file))
        data = pack(
            state,
            metadata.model_copy(update={"metrics": metrics}),
            precision=torch.float16 if arguments.half else torch.float32,
        )
    else:
        data = converted(arguments.file, **choices, half=arguments.half)
    write_whole(arguments.to, lambda file: file.write(data))
    metadata = Checkpoint(arguments.to).metadata
    print(f"{arguments.to}: {digest(data)}")
    print(f"{metadata.variant}, {metadata.image_size} px: {metadata.origin}")
    return 0


def _metrics(results: Path, *, of: str) -> dict[str, float]:
    """Mean Dice over collections by protocol, clicks to an IoU; refused when of another file."""
    content = json_object(results)
    try:
        names = [name for name, about in content["models"].items() if about["digest"] == of]
        if not names:
            raise CheckpointError(f"{results} says nothing of this file: it is of others")
        metrics = {
            figure["protocol"]: figure["measures"]["dice"]["mean"]
            for figure in content["figures"]
            if figure["model"] == names[0] and figure["by"] == "collections"
        }
        for clicks in content["clicks"]:
            if clicks["model"] == names[0] and clicks["by"] == "collections":
                metrics |= {f"noc{to}": mean["mean"] for to, mean in clicks["to_iou"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{results} holds no results of an evaluation") from error
    return {name: round(value, 4) for name, value in metrics.items()}
