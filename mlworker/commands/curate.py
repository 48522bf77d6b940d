"""`mlworker curate`: training data in SAM-Med2D's form from images and label maps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlworker.training.curate import COLUMNS, curate, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("pairs", type=Path, help=f"CSV with the columns {', '.join(COLUMNS)}")
    parser.add_argument("--to", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--slices-per-axis", type=int, help="of a volume, evenly spaced (default: all)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Curate, and say what was kept and dropped."""
    curation = curate(
        arguments.pairs,
        arguments.to,
        slices_per_axis=arguments.slices_per_axis,
        progress=_say if sys.stderr.isatty() else lambda done, of: None,
    )
    print(summary(curation))
    return 0


def _say(done: int, of: int) -> None:
    print(f"\r{done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)
