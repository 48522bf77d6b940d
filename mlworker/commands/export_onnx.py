"""`mlworker export-onnx`: encoder and decoder for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlworker.inference.export_onnx import export
from mlworker.model.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True, help="folder to write into")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say how large the files are and how far from the model."""
    for name, difference in export(Checkpoint(arguments.checkpoint), arguments.to).items():
        size = (arguments.to / name).stat().st_size / 1e6
        print(f"{arguments.to / name}: {size:.1f} MB, within {difference:.1g} of the model")
    return 0
