"""`delineate`: one table of subcommands, each a small module with ``add_arguments`` and ``run``.

A module is imported only when its command is called: `up` must not load Django, and a command that
needs the database gets the addresses of the running installation first.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import django
from pydantic import ValidationError

from delineate.config import env
from delineate.errors import DelineateError
from delineate.supervision import running


class CommandModule(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


@dataclass(frozen=True)
class Command:
    """A subcommand and where it is."""

    name: str
    help: str
    module: str
    uses_database: bool = True


COMMANDS = (
    Command("up", "start the whole system", "delineate.supervision.up", uses_database=False),
    Command(
        "doctor",
        "say what is wrong with an installation",
        "delineate.supervision.doctor",
        uses_database=False,
    ),
    Command("user", "add users, set passwords, make API tokens", "delineate.accounts.commands"),
    Command("model", "add, list and choose models", "delineate.registry.commands"),
    Command("import", "upload files or a folder into a project", "delineate.studies.commands"),
    Command("export", "write a project's masks to a file", "delineate.exports.commands"),
    Command(
        "reidentify",
        "put patients' identities back into an export",
        "delineate.exports.reidentify_command",
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; 0 when it went well, 1 when it was refused, 2 when it was misspelt."""
    given = sys.argv[1:] if argv is None else argv
    name = next((word for word in given if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="delineate", description=__doc__.splitlines()[0])
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    chosen: CommandModule | None = None
    try:
        for command in COMMANDS:
            subparser = subparsers.add_parser(command.name, help=command.help)
            if command.name == name:
                chosen = _load(command, subparser, given)
                chosen.add_arguments(subparser)
        arguments = parser.parse_args(given)
        assert chosen is not None, "argparse refuses what is not in the table"
        return chosen.run(arguments)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        print(f"delineate: The environment is not right ({wrong}). [settings]", file=sys.stderr)
        return 1
    except DelineateError as error:
        print(f"delineate: {error} [{error.code}]", file=sys.stderr)
        return 1


def _load(command: Command, subparser: argparse.ArgumentParser, given: list[str]) -> CommandModule:
    if command.uses_database:
        subparser.add_argument(
            "--var", type=Path, default=None, help="folder of the running installation"
        )
        early = argparse.ArgumentParser(add_help=False)
        early.add_argument("--var", type=Path, default=None)
        env.adopt(running.environment(early.parse_known_args(given)[0].var))
        django.setup()
    return cast(CommandModule, importlib.import_module(command.module))
