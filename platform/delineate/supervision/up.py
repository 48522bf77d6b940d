"""`delineate up`: from a folder to a running system, and back."""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from delineate.config.env import Machine, inherited
from delineate.supervision import health, postgres_server, redis_server
from delineate.supervision.account import database_account
from delineate.supervision.child import Child, end_family, launch
from delineate.supervision.installation import (
    MARK,
    Installation,
    end_leftovers,
    locked,
    open_installation,
)
from delineate.supervision.postgres_server import PostgresServer
from delineate.supervision.preconditions import check_frontend, check_port, check_room
from delineate.supervision.processes import MIGRATE, Process, processes
from delineate.supervision.redis_server import RedisServer
from delineate.supervision.refusals import ChildFailed
from delineate.supervision.supervisor import Supervisor, Watch

DATABASES_WITHIN_S = 60.0  # a recovery after a power cut included
HEALTHY_WITHIN_S = 120.0  # a first start compiles every module
WATCHED_EVERY_S = 5.0
WORKERS_ARE_TOLD = (MARK, "REDIS_URL", "STORAGE_URL", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Services:
    """The embedded servers, each None where a real one was given, and all three addresses."""

    postgres: PostgresServer | None
    redis: RedisServer | None
    database_url: str
    redis_url: str
    storage_url: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments; what is not given comes from the environment."""
    machine = Machine.read()
    parser.add_argument("--port", type=int, default=machine.port, help="loopback port of the pages")
    parser.add_argument("--var", type=Path, default=machine.var, help="folder of the installation")
    parser.add_argument("--no-demo", action="store_true", help="do not make the demo project")


def run(arguments: argparse.Namespace) -> int:
    """Start everything, stay until asked to stop, stop everything; the exit status."""
    machine = Machine.read()
    installation = open_installation(arguments.var)
    with locked(installation):
        if count := end_leftovers(installation):
            say(f"Ended {count} processes that a killed predecessor had left running.")
        check_room(installation, machine)
        check_port(arguments.port, instead=f"--port (make up PORT={arguments.port + 1})")
        if machine.dicom_port is not None:
            check_port(machine.dicom_port, instead="DELINEATE_DICOM_PORT")
        check_frontend(machine)
        installation.remember_ports(web=arguments.port)
        return asyncio.run(
            _up(installation, machine, port=arguments.port, demo=not arguments.no_demo)
        )


def prepare_services(installation: Installation, machine: Machine) -> Services:
    """Make what must be there before the databases can start."""
    secrets = installation.secrets()
    chosen = installation.choose_ports("postgres", "redis")
    postgres = redis_ = None
    if machine.database_url is None:
        postgres = postgres_server.prepare(
            installation.postgres,
            port=chosen["postgres"],
            password=secrets.postgres_password,
            account=database_account(installation.postgres),
        )
    if machine.redis_url is None:
        redis_ = redis_server.prepare(
            installation.redis,
            port=chosen["redis"],
            password=secrets.redis_password,
            account=database_account(installation.redis),
        )
    return Services(
        postgres=postgres,
        redis=redis_,
        database_url=postgres.url if postgres else str(machine.database_url),
        redis_url=redis_.url if redis_ else str(machine.redis_url),
        storage_url=machine.storage_url or f"file://{installation.objects}",
    )


def environment(
    installation: Installation, machine: Machine, services: Services, *, port: int
) -> dict[str, str]:
    """What the server's processes are told beside what they inherit."""
    return {
        MARK: str(installation.var),
        "DJANGO_SETTINGS_MODULE": "delineate.config.settings",
        "DELINEATE_SECRET_KEY": machine.secret_key or installation.secrets().secret_key,
        "DELINEATE_ORIGINS": machine.origins or health.own_origins(port),
        "DELINEATE_FRONTEND": str(machine.frontend),
        "DELINEATE_DEMO_SIGN_INS": str(installation.demo_sign_ins),
        "DATABASE_URL": services.database_url,
        "REDIS_URL": services.redis_url,
        "STORAGE_URL": services.storage_url,
        "PYTHONUNBUFFERED": "1",
    }


def say(line: str) -> None:
    """One line on the console, at once."""
    print(line, flush=True)  # the console is this command's page


async def _up(installation: Installation, machine: Machine, *, port: int, demo: bool) -> int:
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sent, asked_to_stop.set)
    services = prepare_services(installation, machine)
    told = environment(installation, machine, services, port=port)
    table = processes(
        machine,
        port=port,
        node_suffix=f"-{installation.token}",
        beat_schedule=str(installation.run / "beat-schedule"),
    )
    supervisor = Supervisor(logs=installation.log, inherited=inherited(), notice=say)
    running = asyncio.create_task(
        _run_system(supervisor, installation, services, table, told, port=port, demo=demo)
    )
    stop_wanted = asyncio.create_task(asked_to_stop.wait())
    try:
        await asyncio.wait({running, stop_wanted}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()  # it only ends by failing
        say("Stopping.")
    finally:
        stop_wanted.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await supervisor.stop("web")
        await supervisor.stop(*(process.name for process in table))
        await supervisor.stop("redis")
        await supervisor.stop("postgres")
    say("Everything has been stopped; the data are kept.")
    return 0


async def _run_system(
    supervisor: Supervisor,
    installation: Installation,
    services: Services,
    table: tuple[Process, ...],
    told: dict[str, str],
    *,
    port: int,
    demo: bool,
) -> None:
    began = time.monotonic()
    if services.postgres is not None:
        supervisor.keep(services.postgres.child())
    if services.redis is not None:
        supervisor.keep(services.redis.child())
        await _wait_for(supervisor, "redis", services.redis.is_ready, within_s=DATABASES_WITHIN_S)
    host = health.host_of(told["DELINEATE_ORIGINS"])
    watches = {process.name: _watch(process, services, port=port, host=host) for process in table}
    # The model's workers know nothing of the database: they load while it is made ready.
    for process in table:
        if process.is_worker:
            supervisor.keep(_child(process, told=told), watch=watches[process.name])
    if services.postgres is not None:
        ready = services.postgres.is_ready
        await _wait_for(supervisor, "postgres", ready, within_s=DATABASES_WITHIN_S)
    await _run_to_end("migrate", *MIGRATE[1:], env=told, logs=installation.log)
    for process in table:
        if not process.is_worker:
            supervisor.keep(_child(process, told=told), watch=watches[process.name])
    await _wait_until_healthy(supervisor, services, table, port=port, host=host)
    say(f"Delineate is ready after {time.monotonic() - began:.0f} s: http://127.0.0.1:{port}/")
    if demo:
        await _make_demo(installation, told)
    say("Ctrl-C stops everything.")
    await asyncio.Event().wait()


async def _make_demo(installation: Installation, told: dict[str, str]) -> None:
    try:
        say(await _run_to_end("demo", "-m", "delineate.demo", env=told, logs=installation.log))
    except ChildFailed as error:
        # The system is sound without it, and the next start tries again.
        say(f"The demo could not be made: {error}")


def _child(process: Process, *, told: dict[str, str]) -> Child:
    known = {name: told[name] for name in WORKERS_ARE_TOLD} if process.is_worker else told
    return Child(
        name=process.name,
        # The same interpreter as ours: the environment that was installed and tested.
        command=(sys.executable, *process.command[1:]),
        env={**known, **process.env},
        nice=process.nice,
    )


def _watch(process: Process, services: Services, *, port: int, host: str) -> Watch | None:
    """How the process is seen to have died inwardly; None where only its end can tell.

    The databases have none: one that is merely overloaded must never be killed for it.
    """
    if process.name == "web":
        # Any answer will do: ending the web process does not bring a database back.
        return Watch(
            lambda: health.http_status(port, host=host) is not None, every_s=WATCHED_EVERY_S
        )
    if process.queue is None or process.deadline_s is None:
        return None
    queue, deadline_s = process.queue, process.deadline_s
    return Watch(
        lambda: _gives_signs_of_life(services.redis_url, queue, within_s=deadline_s),
        every_s=WATCHED_EVERY_S,
        failures=2,
    )


def _gives_signs_of_life(redis_url: str, queue: str, *, within_s: float) -> bool | None:
    try:
        age_s = health.heartbeat_age_s(redis_url, queue)
    except redis.RedisError:
        return None
    return age_s is not None and age_s <= within_s


async def _wait_until_healthy(
    supervisor: Supervisor, services: Services, table: tuple[Process, ...], *, port: int, host: str
) -> None:
    began = time.monotonic()

    def beats(queue: str) -> bool:
        # A sign from before the start is a predecessor's.
        since_s = time.monotonic() - began + 1
        return bool(_gives_signs_of_life(services.redis_url, queue, within_s=since_s))

    for process in table:
        if process.queue is not None:
            claim = functools.partial(beats, process.queue)
            await _wait_for(supervisor, process.name, claim, within_s=HEALTHY_WITHIN_S)
        if process.address is not None:
            claim = functools.partial(health.listens, process.address)
            await _wait_for(supervisor, process.name, claim, within_s=HEALTHY_WITHIN_S)
    await _wait_for(
        supervisor,
        "web",
        lambda: health.http_status(port, host=host) == 200,
        within_s=HEALTHY_WITHIN_S,
    )


async def _wait_for(
    supervisor: Supervisor, name: str, claim: Callable[[], bool], *, within_s: float
) -> None:
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(claim):
        ends = supervisor.ends(name)
        if len(ends) >= 3 or time.monotonic() > deadline:
            how = f"it {ends[-1]}" if ends else f"it did not answer within {within_s:.0f} s"
            log = supervisor.log_of(name)
            raise ChildFailed(f"{name} does not come up: {how}. {_last_words(log)}")
        await asyncio.sleep(0.1)


async def _run_to_end(name: str, *arguments: str, env: dict[str, str], logs: Path) -> str:
    """Run Python to its end; what it printed. Raises ChildFailed."""
    path = logs / f"{name}.log"
    with path.open("wb") as file:
        child = Child(name=name, command=(sys.executable, *arguments))
        process = launch(child, inherited={**inherited(), **env}, log=file)
    try:
        while process.poll() is None:
            await asyncio.sleep(0.05)
    finally:
        if process.poll() is None:
            end_family(process, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise ChildFailed(f"{name} failed. {_last_words(path)}")
    return path.read_text(errors="replace").strip()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    last = f"Its last words: “{lines[-1].strip()}”. " if lines else ""
    return f"{last}The whole log is {log}."
