"""`delineate model`: add, list and choose models."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final, get_args

from django.core.files import File

from delineate.errors import Invalid, NotFound
from delineate.jobs import JobState
from delineate.registry import services
from delineate.registry.models import ModelUpload, ModelVersion
from delineate.registry.selectors import all_models
from mlworker.contract.messages import AdapterChoice, Variant

ASK_EVERY_S: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `delineate model`."""
    commands = parser.add_subparsers(dest="model_command", required=True, metavar="what")
    add = commands.add_parser("add", help="a checkpoint of SAM-Med2D, of SAM, or of ours")
    add.add_argument("file", type=Path)
    add.add_argument("--name", default="", help="what it is called; as its file without it")
    add.add_argument(
        "--adapters",
        choices=get_args(AdapterChoice),
        help="fresh ones, those of the file, or none; without it those of the file, and fresh ones "
        "for an original SAM",
    )
    add = commands.add_parser("add-untrained", help="make a model of random weights, to try with")
    add.add_argument("--variant", choices=get_args(Variant), default="vit_t")
    add.add_argument("--seed", type=int, default=0)
    default = commands.add_parser("default", help="choose the model that answers prompts")
    default.add_argument("digest", help="its digest, or the beginning of it")
    commands.add_parser("list", help="show all models, the newest first")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; refusals are raised."""
    if arguments.model_command == "add":
        print(_line(_added(arguments.file, name=arguments.name, adapters=arguments.adapters)))
    elif arguments.model_command == "add-untrained":
        model = services.add_untrained(variant=arguments.variant, seed=arguments.seed)
        print(_line(model))
    elif arguments.model_command == "default":
        print(_line(services.make_default(_whole_digest(arguments.digest))))
    else:
        for model in all_models():
            print(_line(model))
    return 0


def _added(path: Path, *, name: str, adapters: AdapterChoice | None) -> ModelVersion:
    """The model that the file becomes; Invalid with the worker's reason."""
    if not path.is_file():
        raise Invalid(f"There is no file {path}.", code="no_such_path")
    with path.open("rb") as file:
        upload = services.receive_checkpoint(
            File(file, name=path.name), name=name, adapters=adapters
        )
    upload = _followed(upload)
    if upload.model is None:
        raise Invalid(upload.error_message, code=upload.error_code)
    return upload.model


def _followed(upload: ModelUpload) -> ModelUpload:
    while upload.state not in (JobState.DONE, JobState.FAILED):
        time.sleep(ASK_EVERY_S)
        upload.refresh_from_db()
    return upload


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
