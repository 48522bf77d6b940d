"""`mlworker predict`: a mask from points or a box, or one for each of several boxes."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mlworker.commands.images import read_rgb
from mlworker.contract.messages import Box, Point
from mlworker.inference.cache import decoding_part, encoding_part
from mlworker.inference.predictor import Prompt
from mlworker.model.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("image", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--point", type=_numbers(2), action="append", default=[], metavar="X,Y")
    parser.add_argument("--not-point", type=_numbers(2), action="append", default=[], metavar="X,Y")
    parser.add_argument(
        "--box",
        type=_numbers(4),
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="may be repeated: one object each, then without points",
    )
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        help="PNG to write, 255 inside; of several boxes one PNG each, because objects may "
        "overlap: mask.png becomes mask-1.png, mask-2.png, …",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the masks that the prompts give on one image."""
    prompts = _prompts(arguments)
    checkpoint = Checkpoint(arguments.checkpoint)
    rgb = read_rgb(arguments.image)
    (embedding,) = encoding_part(checkpoint).encode([rgb])
    predictions = decoding_part(checkpoint).predict_many(
        torch.from_numpy(embedding), height=rgb.shape[0], width=rgb.shape[1], prompts=prompts
    )
    for number, prediction in enumerate(predictions, start=1):
        path: Path = arguments.to
        if len(predictions) > 1:
            path = path.with_stem(f"{path.stem}-{number}")
        Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(path)
        print(f"{path}: predicted IoU {prediction.predicted_iou:.3f}")
    return 0


def _prompts(arguments: argparse.Namespace) -> list[Prompt]:
    """One for each object; raises ValueError."""
    points = tuple(
        Point(x=x, y=y, positive=positive)
        for given, positive in ((arguments.point, True), (arguments.not_point, False))
        for x, y in given
    )
    boxes = [Box(x0=x0, y0=y0, x1=x1, y1=y1) for x0, y0, x1, y1 in arguments.box]
    if not points and not boxes:
        raise ValueError("a point or a box is needed")
    if points and len(boxes) > 1:
        raise ValueError("points are of one object: give them with one box, or several boxes alone")
    return [Prompt(points=points, box=box) for box in boxes] or [Prompt(points=points)]


class _numbers:  # noqa: N801 (an argparse type, named as it reads in its message)
    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, text: str) -> tuple[float, ...]:
        values = tuple(float(part) for part in text.split(","))
        if len(values) != self._count:
            raise argparse.ArgumentTypeError(f"{text} is not {self._count} numbers")
        return values
