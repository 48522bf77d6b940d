"""The folder of one installation: its secrets, its ports, its lock.

var/                0711, so that the databases' user can pass through to its own folders
├── postgres/ redis/    0700, of the databases' user (see account.py for where else)
├── objects/            0700, the object store
├── log/ run/           0700
├── secrets.json        0600, made once
├── ports.json          which loopback ports are used
└── demo-sign-ins.txt   0600
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import psutil

from delineate.supervision import ports
from delineate.supervision.refusals import AlreadyRunning, NotWritable

# Every process of an installation carries this variable: it tells its leftovers from others'.
MARK = "DELINEATE_INSTALLATION"


@dataclass(frozen=True)
class Secrets:
    """Made once for each installation."""

    secret_key: str
    postgres_password: str
    redis_password: str


@dataclass(frozen=True)
class Installation:
    """One installation, by its folder."""

    var: Path

    @property
    def token(self) -> str:
        """A short name that no other installation on this machine has."""
        return sha256(os.fsencode(self.var)).hexdigest()[:8]

    @property
    def postgres(self) -> Path:
        return self.var / "postgres"

    @property
    def redis(self) -> Path:
        return self.var / "redis"

    @property
    def objects(self) -> Path:
        return self.var / "objects"

    @property
    def log(self) -> Path:
        return self.var / "log"

    @property
    def run(self) -> Path:
        return self.var / "run"

    @property
    def demo_sign_ins(self) -> Path:
        return self.var / "demo-sign-ins.txt"

    def secrets(self) -> Secrets:
        """This installation's secrets, made now if there are none."""
        path = self.var / "secrets.json"
        if not path.exists():
            made = Secrets(*(secrets.token_hex(32) for _ in range(3)))
            _write_private(path, json.dumps(asdict(made), indent=2))
        return Secrets(**json.loads(path.read_text()))

    def remembered_ports(self) -> dict[str, int]:
        """Which ports were used last, by name."""
        path = self.var / "ports.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def choose_ports(self, *names: str) -> dict[str, int]:
        """The ports of last time where they are free, others else; remembered for next time."""
        before = self.remembered_ports()
        chosen: dict[str, int] = {}
        with ExitStack() as held:  # all at once, so that no two are the same
            for name in names:
                if name in before and ports.is_free(before[name]):
                    chosen[name] = before[name]
                else:
                    chosen[name] = held.enter_context(ports.reserve()).getsockname()[1]
        self.remember_ports(**chosen)
        return chosen

    def remember_ports(self, **chosen: int) -> None:
        """For commands, for doctor, and for the next start."""
        text = json.dumps(self.remembered_ports() | chosen, indent=2)
        _write_private(self.var / "ports.json", text)


def open_installation(var: Path) -> Installation:
    """The installation in ``var``, its folders made; raises NotWritable."""
    installation = Installation(var.absolute())
    try:
        if not var.exists():
            var.mkdir(mode=0o711, parents=True)
        for folder in (installation.log, installation.run, installation.objects):
            folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=installation.run):
            pass
    except OSError as error:
        raise NotWritable(
            f"The folder {var} cannot be written ({error.strerror}): give its owner's account, "
            "or choose another folder with --var."
        ) from error
    return installation


@contextmanager
def locked(installation: Installation) -> Iterator[None]:
    """Hold the installation for this process; raises AlreadyRunning.

    The kernel lets go of the lock when its holder ends in whatever way: a file that is left behind
    means nothing.
    """
    with (installation.run / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"Another `delineate up` ({_holder(installation)}) already runs the installation "
                f"in {installation.var}: stop that one first, or start a second installation with "
                "--var and --port."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_locked(installation: Installation) -> bool:
    """Whether some `delineate up` holds the installation now."""
    path = installation.run / "lock"
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def end_leftovers(installation: Installation) -> int:
    """End what a killed supervisor left running; only for the holder of the lock. How many."""
    leftovers = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(installation.var):
                leftovers.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    for process in leftovers:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(leftovers, timeout=5)
    return len(leftovers)


def _holder(installation: Installation) -> str:
    pid = (installation.run / "lock").read_text().strip()
    return f"process {pid}" if pid else "just starting"


def _write_private(path: Path, text: str) -> None:
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(partial).replace(path)
