"""`delineate model`: add, list and choose models."""

from __future__ import annotations

import argparse
from typing import get_args

from delineate.errors import Invalid, NotFound
from delineate.registry import services
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import all_models
from mlworker.contract.messages import Variant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `delineate model`."""
    commands = parser.add_subparsers(dest="model_command", required=True, metavar="what")
    add = commands.add_parser("add-untrained", help="make a model of random weights, to try with")
    add.add_argument("--variant", choices=get_args(Variant), default="vit_t")
    add.add_argument("--seed", type=int, default=0)
    default = commands.add_parser("default", help="choose the model that answers prompts")
    default.add_argument("digest", help="its digest, or the beginning of it")
    commands.add_parser("list", help="show all models, the newest first")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; refusals are raised."""
    if arguments.model_command == "add-untrained":
        model = services.add_untrained(variant=arguments.variant, seed=arguments.seed)
        print(_line(model))
    elif arguments.model_command == "default":
        print(_line(services.make_default(_whole_digest(arguments.digest))))
    else:
        for model in all_models():
            print(_line(model))
    return 0


def _whole_digest(beginning: str) -> str:
    digests = list(
        all_models().filter(digest__startswith=beginning).values_list("digest", flat=True)[:2]
    )
    if not digests:
        raise NotFound(f"No model's digest begins with {beginning}.", code="unknown_model")
    if len(digests) > 1:
        raise Invalid(f"Several models' digests begin with {beginning}.", code="ambiguous_model")
    return digests[0]


def _line(model: ModelVersion) -> str:
    marks = [
        "trained" if model.trained else "untrained",
        *(["default"] if model.is_default else []),
    ]
    return "\t".join([model.digest, model.name, model.variant, *marks])
