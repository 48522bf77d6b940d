"""`mlworker COMMAND`: the model without the server; a command is a module of mlworker.commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

from mlworker.model.checkpoint import CheckpointError

# In the order of the help. A module is loaded when it is asked for: some bring heavy libraries.
COMMANDS: Final = {
    "embed": "embeddings of a folder of images",
    "predict": "a mask from points or a box",
    "convert": "a checkpoint of ours from one of anybody's",
    "curate": "training data from images and label maps",
    "train": "a model, fine-tuned on one's own masks",
    "evaluate": "models, on masks that they have not learnt",
    "pretrain": "a small model from scratch",
    "export-onnx": "encoder and decoder for other runtimes",
    "untrained": "a checkpoint of random weights",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    given = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="mlworker", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in given:
            module = importlib.import_module(f"mlworker.commands.{name.replace('-', '_')}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(given)
    try:
        return int(arguments.run(arguments))
    except (CheckpointError, OSError, ValueError) as error:
        print(f"mlworker: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
