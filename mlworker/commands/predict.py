"""`mlworker predict`: a mask from points or a box."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mlworker.commands.images import read_rgb
from mlworker.contract.messages import Box, Point
from mlworker.inference.cache import decoding_part, encoding_part
from mlworker.model.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("image", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--point", type=_numbers(2), action="append", default=[], metavar="X,Y")
    parser.add_argument("--not-point", type=_numbers(2), action="append", default=[], metavar="X,Y")
    parser.add_argument("--box", type=_numbers(4), metavar="X0,Y0,X1,Y1")
    parser.add_argument("--to", type=Path, required=True, help="PNG to write")


def run(arguments: argparse.Namespace) -> int:
    """Write the mask that the prompts give on one image."""
    if not arguments.point and not arguments.not_point and arguments.box is None:
        raise ValueError("a point or a box is needed")
    checkpoint = Checkpoint(arguments.checkpoint)
    rgb = read_rgb(arguments.image)
    (embedding,) = encoding_part(checkpoint).encode([rgb])
    prediction = decoding_part(checkpoint).predict(
        torch.from_numpy(embedding),
        height=rgb.shape[0],
        width=rgb.shape[1],
        points=tuple(
            Point(x=x, y=y, positive=positive)
            for given, positive in ((arguments.point, True), (arguments.not_point, False))
            for x, y in given
        ),
        box=None
        if arguments.box is None
        else Box(**dict(zip(("x0", "y0", "x1", "y1"), arguments.box, strict=True))),
    )
    Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(arguments.to)
    print(f"{arguments.to}: predicted IoU {prediction.predicted_iou:.3f}")
    return 0


class _numbers:  # noqa: N801 (an argparse type, named as it reads in its message)
    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, text: str) -> tuple[float, ...]:
        values = tuple(float(part) for part in text.split(","))
        if len(values) != self._count:
            raise argparse.ArgumentTypeError(f"{text} is not {self._count} numbers")
        return values
