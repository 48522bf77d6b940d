"""`delineate user`: add users, set passwords, list them, and the API tokens of each."""

from __future__ import annotations

import argparse
import getpass
import sys
from uuid import UUID

from delineate.accounts import services, tokens
from delineate.accounts.models import ApiToken, User
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
    token = commands.add_parser("token", help="make an API token and print it, this once")
    token.add_argument("username")
    token.add_argument("--name", required=True, help="what it is for")
    token.add_argument(
        "--days",
        type=int,
        default=tokens.DAYS_BY_DEFAULT,
        help="how long it is good (%(default)s without this)",
    )
    token.add_argument(
        "--never-expires",
        dest="days",
        action="store_const",
        const=None,
        help="good until it is revoked",
    )
    token.add_argument("--project", type=UUID, metavar="ID", help="the only project it reaches")
    token.add_argument("--read-only", action="store_true", help="it changes nothing")
    listing = commands.add_parser("tokens", help="show somebody's API tokens")
    listing.add_argument("username")
    revoke = commands.add_parser("revoke-token", help="end an API token")
    revoke.add_argument("username")
    revoke.add_argument("token_id", type=UUID, metavar="ID")


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
    elif arguments.user_command == "token":
        _make_token(arguments)
    elif arguments.user_command == "tokens":
        for token in tokens.tokens_of(_user(arguments.username)):
            print("\t".join([str(token.id), token.name, *_reach(token)]))
    elif arguments.user_command == "revoke-token":
        tokens.revoke_token(arguments.token_id, of=_user(arguments.username), by=None)
        print("The token opens nothing any more.")
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


def _make_token(arguments: argparse.Namespace) -> None:
    made = tokens.make_token(
        _user(arguments.username),
        name=arguments.name,
        days=arguments.days,
        project_id=arguments.project,
        read_only=arguments.read_only,
        by=None,
    )
    print("Keep this now: it is not shown again.", file=sys.stderr)
    print(made.secret)  # alone on standard output, for scripts


def _reach(token: ApiToken) -> list[str]:
    return [
        f"expires {token.expires_at:%Y-%m-%d}" if token.expires_at else "never expires",
        f"last used {token.last_used_at:%Y-%m-%d}" if token.last_used_at else "never used",
        *([f"project {token.project_id}"] if token.project_id else []),
        *(["read only"] if token.read_only else []),
    ]


def _user(username: str) -> User:
    user = User.objects.filter(username=username).first()
    if user is None:
        raise NotFound(f"There is no user {username}.", code="unknown_user")
    return user


def _marks(user: User) -> list[tuple[str, bool]]:
    return [("superuser", user.is_superuser), ("closed", not user.is_active)]
