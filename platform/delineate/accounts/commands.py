"""`delineate user`: add users, set passwords, list them."""

from __future__ import annotations

import argparse
import getpass
import sys

from delineate.accounts import services
from delineate.accounts.models import User
from delineate.errors import Invalid, NotFound


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What follows `delineate user`."""
    commands = parser.add_subparsers(dest="user_command", required=True, metavar="what")
    add = commands.add_parser("add", help="make an account")
    add.add_argument("username")
    add.add_argument("--name", default="", help="the person's name, shown beside their work")
    add.add_argument(
        "--superuser", action="store_true", help="administers the installation: state and models"
    )
    _add_password_argument(add)
    password = commands.add_parser("password", help="set an account's password")
    password.add_argument("username")
    _add_password_argument(password)
    commands.add_parser("list", help="show all accounts")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; refusals are raised."""
    if arguments.user_command == "add":
        services.create_user(
            arguments.username,
            password=_read_password(from_stdin=arguments.password_stdin),
            full_name=arguments.name,
            is_superuser=arguments.superuser,
        )
        print(f"Added {arguments.username}.")
    elif arguments.user_command == "password":
        user = _user(arguments.username)
        services.set_password(user, new=_read_password(from_stdin=arguments.password_stdin))
        print(f"{user.username} has a new password; open sessions have ended.")
    else:
        for user in User.objects.order_by("username"):
            marks = [mark for mark, holds in _marks(user) if holds]
            print("\t".join([user.username, user.full_name, *marks]))
    return 0


def _add_password_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from the first line of standard input instead of asking for it",
    )


def _read_password(*, from_stdin: bool) -> str:
    # Never an argument: those can be read in the machine's list of processes.
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise Invalid("The two passwords differ.", code="passwords_differ")
    return password


def _user(username: str) -> User:
    user = User.objects.filter(username=username).first()
    if user is None:
        raise NotFound(f"There is no user {username}.", code="unknown_user")
    return user


def _marks(user: User) -> list[tuple[str, bool]]:
    return [("superuser", user.is_superuser), ("closed", not user.is_active)]
