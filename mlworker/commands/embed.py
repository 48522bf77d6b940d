"""`mlworker embed`: embeddings of a folder of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlworker.commands.images import SUFFIXES, read_rgb
from mlworker.contract.artifacts import pack_array
from mlworker.inference.cache import encoding_part
from mlworker.model.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("images", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True, help="folder for the .npy files")


def run(arguments: argparse.Namespace) -> int:
    """Write an embedding beside each image's name."""
    encoding = encoding_part(Checkpoint(arguments.checkpoint))
    arguments.to.mkdir(parents=True, exist_ok=True)
    paths = sorted(p for p in arguments.images.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{arguments.images} holds none of {', '.join(SUFFIXES)}")
    for number, path in enumerate(paths, start=1):
        (embedding,) = encoding.encode([read_rgb(path)])
        (arguments.to / f"{path.stem}.npy").write_bytes(pack_array(embedding))
        print(f"{number}/{len(paths)} {path.name}")
    return 0
