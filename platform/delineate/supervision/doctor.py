"""`delineate doctor`: what is wrong with an installation, and what to do about it.

It looks and changes nothing. While the system is stopped only what can be seen then is examined.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from delineate.config.env import Machine, inherited
from delineate.errors import DelineateError
from delineate.supervision import health, postgres_server, running
from delineate.supervision.installation import Installation, is_locked
from delineate.supervision.preconditions import check_frontend, check_port, check_room
from delineate.supervision.processes import processes

OLDEST_PYTHON = (3, 11)
OLDEST_NODE = 20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    well: bool
    sentence: str  # what is, and where it is not well also what to do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    machine = Machine.read()
    parser.add_argument("--var", type=Path, default=machine.var, help="folder of the installation")
    parser.add_argument("--port", type=int, default=None, help="port to be used, when not running")


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; 0 when all is well."""
    installation = Installation(arguments.var.absolute())
    ill = 0
    for finding in examine(installation, Machine.read(), port=arguments.port):
        print(f"{'ok    ' if finding.well else 'NOT OK'}  {finding.sentence}")
        ill += not finding.well
    print("All is well." if not ill else f"{ill} of these need attention.")
    return 1 if ill else 0


def examine(
    installation: Installation, machine: Machine, *, port: int | None = None
) -> Iterator[Finding]:
    """Everything that can be seen now, the ground first."""
    yield _python()
    yield _node()
    yield _packages()
    yield _refusal(lambda: check_frontend(machine), "The pages are built.")
    if not installation.var.exists():
        yield Finding(
            True, f"There is no installation in {installation.var} yet: `make up` makes one."
        )
        return
    yield _folder(installation)
    yield _refusal(lambda: check_room(installation, machine), "There is room on the disk.")
    yield from _database_version(installation, machine)
    if not is_locked(installation):
        wanted = port or machine.port
        yield Finding(True, "The system is not running: nothing more can be seen.")
        yield _refusal(
            lambda: check_port(wanted, instead="--port"), f"Port {wanted} is free for it."
        )
        return
    yield Finding(True, "The system is running.")
    yield from _running_system(installation, machine)


def _running_system(installation: Installation, machine: Machine) -> Iterator[Finding]:
    told = running.addresses(installation, machine)
    log = installation.log
    yield from _database(told, log)
    yield from _heartbeats(told["REDIS_URL"], machine, log)
    yield from _listeners(machine, log)
    port = installation.remembered_ports().get("web")
    if port is not None:
        status = health.http_status(port, host=health.host_of(told["DELINEATE_ORIGINS"]))
        yield Finding(
            status == 200,
            f"The pages answer at http://127.0.0.1:{port}/."
            if status == 200
            else f"The web process answers {status or 'nothing'} on port {port}: "
            f"see {log / 'web.log'}.",
        )


def _database(told: dict[str, str], log: Path) -> Iterator[Finding]:
    try:
        with psycopg.connect(told["DATABASE_URL"], connect_timeout=3):
            pass
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        yield Finding(False, f"PostgreSQL does not answer ({reason}): see {log / 'postgres.log'}.")
        return
    yield Finding(True, "PostgreSQL answers.")
    migrated = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--check"],
        env={**inherited(), **told},
        capture_output=True,
        check=False,
    )
    yield Finding(
        migrated.returncode == 0,
        "All migrations are applied."
        if migrated.returncode == 0
        else "Migrations are missing: stop the system and start it again, it applies them.",
    )
    if migrated.returncode == 0:
        yield _model(told["DATABASE_URL"])


def _model(database_url: str) -> Finding:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT trained FROM registry_modelversion WHERE is_default"
        ).fetchone()
    if row is None:
        return Finding(
            False,
            "There is no default model, so clicks get no masks: add one with `delineate model`, or "
            "let `delineate up` make its demo.",
        )
    return Finding(True, f"There is a default model ({'trained' if row[0] else 'untrained'}).")


def _heartbeats(redis_url: str, machine: Machine, log: Path) -> Iterator[Finding]:
    for process in processes(machine):
        if process.queue is None or process.deadline_s is None:
            continue
        try:
            age_s = health.heartbeat_age_s(redis_url, process.queue)
        except redis.RedisError as error:
            yield Finding(False, f"Redis does not answer ({error}): see {log / 'redis.log'}.")
            return
        if age_s is not None and age_s <= process.deadline_s:
            yield Finding(True, f"The {process.name} worker is alive.")
        else:
            silent = "never spoke" if age_s is None else f"has been silent for {age_s:.0f} s"
            yield Finding(
                False,
                f"The {process.name} worker {silent}: see {log / f'{process.name}.log'}.",
            )


def _listeners(machine: Machine, log: Path) -> Iterator[Finding]:
    for process in processes(machine):
        if process.address is None:
            continue
        host, port = process.address
        well = health.listens(process.address)
        yield Finding(
            well,
            f"The {process.name} process listens on {host}, port {port}."
            if well
            else f"Nobody listens on {host}, port {port}: see {log / f'{process.name}.log'}.",
        )


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST_PYTHON:
        return Finding(True, f"Python is {found}.")
    return Finding(
        False, f"Python is {found}, and 3.11 is needed: make .venv anew with a newer one."
    )


def _node() -> Finding:
    node = shutil.which("node")
    if node is None:
        return Finding(False, "Node is missing, so the pages cannot be built: install Node 20.")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = said.strip().removeprefix("v")
    if int(version.split(".")[0] or 0) >= OLDEST_NODE:
        return Finding(True, f"Node is {version}.")
    return Finding(False, f"Node is {version}, and {OLDEST_NODE} is needed to build the pages.")


def _packages() -> Finding:
    wrong = []
    for requirement in importlib.metadata.requires("delineate") or []:
        pinned = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?==([\w.+]+)", requirement)
        if pinned is None:  # those of the extras carry a marker: they are not needed to run
            continue
        name, version = pinned.groups()
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        # torch's builds for one kind of device add theirs: 2.13.0+cpu.
        if found.split("+")[0] != version:
            wrong.append(f"{name} is {found} instead of {version}")
    if wrong:
        return Finding(
            False, f"Packages differ from their pins ({'; '.join(wrong)}): `make setup`."
        )
    return Finding(True, "All packages are the pinned ones.")


def _folder(installation: Installation) -> Finding:
    if not os.access(installation.var, os.W_OK):
        return Finding(False, f"{installation.var} cannot be written by this account.")
    for path in (installation.var / "secrets.json", installation.demo_sign_ins):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return Finding(False, f"{path} can be read by others: `chmod 600 {path}`.")
    return Finding(
        True, f"The folder {installation.var} is ours to write, its secrets are private."
    )


def _database_version(installation: Installation, machine: Machine) -> Iterator[Finding]:
    data = installation.postgres / "data"
    if machine.database_url is None and (data / "PG_VERSION").exists():
        yield _refusal(
            lambda: postgres_server.check_version(data),
            f"The database is PostgreSQL {postgres_server.MAJOR}'s.",
        )


def _refusal(check: Callable[[], None], well: str) -> Finding:
    try:
        check()
    except DelineateError as error:
        return Finding(False, str(error))
    return Finding(True, well)
