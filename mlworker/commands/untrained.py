"""`mlworker untrained`: a checkpoint of random weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlworker.model.checkpoint import digest, untrained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--variant", choices=("vit_b", "vit_t"), default="vit_t")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, required=True)


def run(arguments: argparse.Namespace) -> int:
    """Write a checkpoint of random weights."""
    data = untrained(arguments.variant, seed=arguments.seed)
    arguments.to.write_bytes(data)
    print(f"{arguments.to}: {digest(data)}")
    return 0
