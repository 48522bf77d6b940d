"""The one table of the system's processes: used by `delineate up` and held against compose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from delineate.config.env import Machine

# A worker that says nothing for this long is taken for dead. A decode takes milliseconds, loading
# a checkpoint seconds; a batch of encodings or an epoch's step takes longer on a slow machine.
INTERACTIVE_DEADLINE_S = 30.0
BATCH_DEADLINE_S = 120.0

# Of the web process; as many requests read at the same time, the others wait a moment.
WEB_CONNECTIONS = 8

# Once, before the server's processes start.
MIGRATE = ("python", "-m", "django", "migrate", "--no-input")


@dataclass(frozen=True)
class Process:
    """One process of the system."""

    name: str
    command: tuple[str, ...]  # begins with "python"
    is_worker: bool = False  # mlworker's: it is never told of the database, nor of any key
    queue: str | None = None
    deadline_s: float | None = None  # of the queue's heartbeat
    address: tuple[str, int] | None = None  # where it listens, unless it is the web process
    nice: int = 0
    env: Mapping[str, str] = field(default_factory=dict)


def processes(
    machine: Machine,
    *,
    host: str = "127.0.0.1",
    port: int = 8700,
    node_suffix: str = "",
    beat_schedule: str = "/tmp/beat-schedule",  # noqa: S108 (a container's own)
) -> tuple[Process, ...]:
    """All processes but the databases, in the order they are started.

    ``node_suffix`` keeps the workers' names apart from another installation's on the same machine.
    """
    return (
        _worker(
            "interactive",
            node_suffix=node_suffix,
            threads=machine.interactive_threads,
            deadline_s=INTERACTIVE_DEADLINE_S,
            nice=0,
        ),
        # Niced, so that a click never waits behind an encoding or a training step.
        _worker(
            "encode",
            node_suffix=node_suffix,
            threads=machine.encode_threads,
            deadline_s=BATCH_DEADLINE_S,
            nice=10,
        ),
        _worker(
            "train",
            node_suffix=node_suffix,
            threads=machine.train_threads,
            deadline_s=BATCH_DEADLINE_S,
            nice=15,
        ),
        Process(
            name="web",
            command=(
                *("python", "-m", "uvicorn", "delineate.config.asgi:application"),
                *("--host", host, "--port", str(port), "--workers", "1", "--no-access-log"),
                *("--timeout-graceful-shutdown", "5"),
            ),
            env={**_threads(1), "DELINEATE_DATABASE_POOL": str(WEB_CONNECTIONS)},
        ),
        Process(
            name="server",
            command=(
                *("python", "-m", "celery", "-A", "delineate.config.celery", "worker"),
                *("-Q", "server", "--pool=prefork", "-c", str(machine.server_processes)),
                *("-n", f"server@%h{node_suffix}"),
                *("--without-gossip", "--without-mingle", "--loglevel=INFO"),
            ),
            queue="server",
            deadline_s=BATCH_DEADLINE_S,
            nice=5,
            env=_threads(1),
        ),
        Process(
            name="beat",
            command=(
                *("python", "-m", "celery", "-A", "delineate.config.celery", "beat"),
                *("--schedule", beat_schedule, "--pidfile=", "--loglevel=WARNING"),
            ),
            env=_threads(1),
        ),
        *_ways_in(machine),
    )


def _ways_in(machine: Machine) -> tuple[Process, ...]:
    """Those for images that come without a browser, where they are set up."""
    ways = []
    if machine.dicom_port is not None:
        ways.append(
            Process(
                name="dimse",
                command=("python", "-m", "django", "receive_dicom"),
                address=(machine.dicom_host, machine.dicom_port),
                env=_threads(1),
            )
        )
    if machine.watch:
        ways.append(
            Process(
                name="watch",
                command=("python", "-m", "django", "watch_folders"),
                nice=5,
                env=_threads(1),
            )
        )
    return tuple(ways)


def _worker(queue: str, *, node_suffix: str, threads: int, deadline_s: float, nice: int) -> Process:
    return Process(
        name=queue,
        command=(
            *("python", "-m", "celery", "-A", "mlworker.app", "worker"),
            *("-Q", queue, "--pool=solo"),  # CUDA does not survive a fork
            *("-n", f"{queue}@%h{node_suffix}"),
            *("--without-gossip", "--without-mingle", "--loglevel=INFO"),
        ),
        is_worker=True,
        queue=queue,
        deadline_s=deadline_s,
        nice=nice,
        env=_threads(threads),
    )


def _threads(count: int) -> dict[str, str]:
    # Each library counts cores for itself; left alone, six processes would fight over every one.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(count))
