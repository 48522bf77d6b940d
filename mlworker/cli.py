"""`mlworker embed | predict | untrained`: the model on a folder of images, without the server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mlworker.contract.artifacts import Array, pack_array
from mlworker.contract.messages import Box, Point, SliceImage
from mlworker.inference import geometry
from mlworker.inference.cache import decoding_part
from mlworker.inference.encoder import encode
from mlworker.model.checkpoint import Checkpoint, CheckpointError, digest, untrained

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (CheckpointError, OSError, ValueError) as error:
        print(f"mlworker: {error}", file=sys.stderr)
        return 1


def embed(arguments: argparse.Namespace) -> int:
    """Write an embedding beside each image's name."""
    encoder = Checkpoint(arguments.checkpoint).image_encoder()
    arguments.to.mkdir(parents=True, exist_ok=True)
    paths = sorted(p for p in arguments.images.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{arguments.images} holds none of {', '.join(SUFFIXES)}")
    for number, path in enumerate(paths, start=1):
        (embedding,) = encode(encoder, [_rgb(path)])
        (arguments.to / f"{path.stem}.npy").write_bytes(pack_array(embedding))
        print(f"{number}/{len(paths)} {path.name}")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Write the mask that the prompts give on one image."""
    if not arguments.point and not arguments.not_point and arguments.box is None:
        raise ValueError("a point or a box is needed")
    checkpoint = Checkpoint(arguments.checkpoint)
    rgb = _rgb(arguments.image)
    (embedding,) = encode(checkpoint.image_encoder(), [rgb])
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


def make_untrained(arguments: argparse.Namespace) -> int:
    """Write a checkpoint of random weights."""
    data = untrained(arguments.variant, seed=arguments.seed)
    arguments.to.write_bytes(data)
    print(f"{arguments.to}: {digest(data)}")
    return 0


def _rgb(path: Path) -> geometry.Rgb:
    stored: Array = (
        np.load(path, allow_pickle=False)
        if path.suffix == ".npy"
        else np.asarray(Image.open(path).convert("RGB"))
    )
    image = SliceImage(
        pixels_key=path.name,
        pixels_digest="0" * 64,
        height=stored.shape[0],
        width=stored.shape[1],
    )
    return geometry.to_rgb(stored, image)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlworker", description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("embed", help="embeddings of a folder of images")
    command.add_argument("images", type=Path)
    command.add_argument("--checkpoint", type=Path, required=True)
    command.add_argument("--to", type=Path, required=True, help="folder for the .npy files")
    command.set_defaults(run=embed)

    command = commands.add_parser("predict", help="a mask from points or a box")
    command.add_argument("image", type=Path)
    command.add_argument("--checkpoint", type=Path, required=True)
    command.add_argument("--point", type=_numbers(2), action="append", default=[], metavar="X,Y")
    command.add_argument(
        "--not-point", type=_numbers(2), action="append", default=[], metavar="X,Y"
    )
    command.add_argument("--box", type=_numbers(4), metavar="X0,Y0,X1,Y1")
    command.add_argument("--to", type=Path, required=True, help="PNG to write")
    command.set_defaults(run=predict)

    command = commands.add_parser("untrained", help="a checkpoint of random weights")
    command.add_argument("--variant", choices=("vit_b", "vit_t"), default="vit_t")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--to", type=Path, required=True)
    command.set_defaults(run=make_untrained)
    return parser


class _numbers:  # noqa: N801 (an argparse type, named as it reads in its message)
    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, text: str) -> tuple[float, ...]:
        values = tuple(float(part) for part in text.split(","))
        if len(values) != self._count:
            raise argparse.ArgumentTypeError(f"{text} is not {self._count} numbers")
        return values


if __name__ == "__main__":
    sys.exit(main())
