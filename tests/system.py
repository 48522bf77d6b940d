"""The whole system in a process of its own, as `delineate up` starts it."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from delineate.supervision.ports import reserve
from tests.waiting import until


@dataclass(frozen=True)
class Started:
    """A system that runs."""

    process: subprocess.Popen[bytes]
    output: Path
    var: Path
    port: int
    pages: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def children(self) -> dict[str, psutil.Process]:
        """The supervised processes by name."""
        children = psutil.Process(self.process.pid).children()
        return {_name(child): child for child in children}

    def is_healthy(self) -> bool:
        """Whether the web process says that it and the databases are well."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    async def until_ready(self) -> None:
        """Wait until it says that it is ready; fails with its output when it ends instead."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return "Delineate is ready" in self.output.read_text()

        await until(is_ready)

    def delineate(
        self, command: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `delineate COMMAND` for this installation."""
        return subprocess.run(
            [*_command(command), "--var", str(self.var), *arguments],
            env=_environment(self.pages),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def add_user(self, username: str, *more: str) -> dict[str, str]:
        """A new account; how it signs in."""
        password = secrets.token_urlsafe(12)
        added = self.delineate(
            "user", "add", "--password-stdin", *more, username, stdin=f"{password}\n"
        )
        assert added.returncode == 0, added.stderr
        return {"username": username, "password": password}

    @contextmanager
    def signed_in(self, *, username: str, password: str) -> Iterator[httpx.Client]:
        """A client of the HTTP API in which somebody has signed in."""
        with httpx.Client(base_url=self.url, headers={"Origin": self.url}, timeout=30) as client:
            client.get("/api/session")
            for_sign_in = {"X-CSRFToken": client.cookies["csrftoken"]}
            person = {"username": username, "password": password}
            answer = client.post("/api/session", json=person, headers=for_sign_in)
            assert answer.status_code == 200, answer.text
            client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
            yield client


@contextmanager
def up(
    folder: Path, *, port: int, pages: Path, told: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """A system under ``folder`` that serves the built frontend ``pages``; stopped at the end.

    ``told``: more variables of its environment.
    """
    output = folder / "up.log"
    var = folder / "var"
    command = [*_command("up"), "--no-demo", "--var", str(var), "--port", str(port)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            env={**_environment(pages), **(told or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Started(process, output, var, port, pages)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def blank_pages(folder: Path) -> Path:
    """Pages for a system that nobody looks at."""
    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    (pages / "index.html").write_text("<!doctype html><title>Delineate</title>")
    return pages


def free_port() -> int:
    """A port that nobody listens on."""
    with reserve() as held:
        return int(held.getsockname()[1])


def _command(name: str) -> list[str]:
    return [sys.executable, "-c", "from delineate.cli import main; exit(main())", name]


def _environment(pages: Path) -> dict[str, str]:
    ours = ("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "DJANGO_SETTINGS_MODULE")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("DELINEATE_")
    }
    return {**inherited, "DELINEATE_FRONTEND": str(pages)}


def _name(child: psutil.Process) -> str:
    command: list[str] = child.cmdline()
    if "-Q" in command:
        return command[command.index("-Q") + 1]
    words = {"web": "uvicorn", "beat": "beat", "dimse": "receive_dicom", "watch": "watch_folders"}
    for name, word in words.items():
        if word in command:
            return name
    program = str(child.name())
    return {"redis-server": "redis"}.get(program, program)
