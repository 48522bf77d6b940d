"""Robots that delineate as people do: signed in, by the HTTP API and the socket of a task.

The first point is put in the middle of the structure, further ones in the middle of what is most
wrong; what the points do not reach is drawn.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import websockets

from mlworker.contract import masks
from mlworker.contract.masks import RunLengths, dice
from mlworker.training.prompts import worst_point

CLI: Final = (sys.executable, "-c", "from delineate.cli import main; exit(main())")
TARGET: Final = 0.85  # Dice at which a robot is content
PATIENCE_S: Final = 3600.0
PASSWORD: Final = "a-robots-password"

Mask = npt.NDArray[np.bool_]
Task = Mapping[str, Any]  # as the API tells it


@dataclass(frozen=True)
class Robot:
    """A signed-in account."""

    client: httpx.Client
    url: str

    def get(self, path: str) -> Any:
        """JSON of an address."""
        return self._checked(self.client.get(path))

    def post(self, path: str, body: object = None, **more: Any) -> Any:
        """JSON of what came of a request."""
        return self._checked(self.client.post(path, json=body, **more))

    def put(self, path: str, body: object) -> Any:
        """Likewise."""
        return self._checked(self.client.put(path, json=body))

    @staticmethod
    def _checked(answer: httpx.Response) -> Any:
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


class Desk:
    """An open socket on the only slice of a task."""

    def __init__(self, robot: Robot, task: Task) -> None:
        self._robot, self._task = robot, task
        self.slice_id = task["series"]["slices"][0]["id"]
        self._proposal: dict[str, Any] | None = None
        self._client_id, self._sequence = str(uuid.uuid4()), 0

    async def __aenter__(self) -> Desk:
        cookies = "; ".join(f"{n}={v}" for n, v in self._robot.client.cookies.items())
        self._socket = await websockets.connect(
            f"{self._robot.url.replace('http', 'ws', 1)}/ws/tasks/{self._task['id']}",
            additional_headers={"Cookie": cookies, "Origin": self._robot.url},
            max_size=None,
        )
        await self._until("welcome")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def click(self, label_id: str, truth: Mask, *, most: int) -> list[float]:
        """Points in the middle of what is most wrong; Dice after each."""
        points: list[dict[str, Any]] = []
        predicted, reached = np.zeros_like(truth), []
        self._proposal = None
        while len(points) < most:
            point = worst_point(predicted, truth)
            if point is None:
                break
            points.append(point.model_dump(mode="json"))
            answer = await self._ask(
                {
                    "kind": "prompt",
                    "request_id": str(uuid.uuid4()),
                    "slice_id": self.slice_id,
                    "label_id": label_id,
                    "prompts": {"points": points, "box": None},
                    "refine": None
                    if self._proposal is None
                    else {
                        "kind": "previous_logits",
                        "proposal_id": self._proposal["proposal_id"],
                    },
                }
            )
            self._proposal = answer["proposal"]
            predicted = masks.decode(RunLengths.model_validate(answer["proposal"]["mask"]))
            reached.append(dice(predicted, truth))
            if reached[-1] >= TARGET:
                break
        return reached

    @property
    def model(self) -> str:
        """Whose the last proposal is, by digest."""
        assert self._proposal is not None, "somebody clicked"
        return str(self._proposal["model_digest"])

    async def correct(self, label_id: str, truth: Mask) -> int:
        """Take the last proposal, and draw and erase what it lacks; the draft's version."""
        assert self._proposal is not None, "somebody clicked"
        predicted = masks.decode(RunLengths.model_validate(self._proposal["mask"]))
        changes = {
            "prompts": self._proposal["prompts"],
            "proposal": self._proposal,
            "drawn": masks.encode(truth & ~predicted).model_dump(mode="json"),
            "erased": masks.encode(predicted & ~truth).model_dump(mode="json"),
        }
        self._sequence += 1
        await self._socket.send(
            json.dumps(
                {
                    "kind": "operation",
                    "slice_id": self.slice_id,
                    "label_id": label_id,
                    "client_id": self._client_id,
                    "sequence": self._sequence,
                    "base": 0,
                    "action": "prompt",
                    "changes": changes,
                }
            )
        )
        return int((await self._until("saved"))["version"])

    async def _ask(self, prompt: dict[str, Any]) -> dict[str, Any]:
        while True:
            await self._socket.send(json.dumps(prompt))
            answer = await self._until("proposal", "preparing")
            if answer["kind"] == "proposal":
                return answer
            await self._until("prepared")

    async def _until(self, *kinds: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await self._socket.recv())
            assert message["kind"] != "refused", message
            if message["kind"] in kinds:
                return message


@dataclass
class Load:
    """What sessions that click without a pause have seen so far."""

    milliseconds: list[float] = field(default_factory=list)  # of each click
    models: list[set[str]] = field(default_factory=list)  # of each session, by digest


@contextmanager
def under_load(robot: Robot, work: Sequence[tuple[Task, str, Mask]]) -> Iterator[Load]:
    """A session on each task, clicking on its structure (label, mask) as long as this lasts."""
    load, ended = Load(models=[set() for _ in work]), threading.Event()

    async def clicks(task: Task, label_id: str, truth: Mask, models: set[str]) -> None:
        async with Desk(robot, task) as desk:
            while not ended.is_set():
                began = time.perf_counter()
                await desk.click(label_id, truth, most=1)
                load.milliseconds.append((time.perf_counter() - began) * 1e3)
                models.add(desk.model)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for each, models in zip(work, load.models, strict=True):
                group.create_task(clicks(*each, models))

    failed: list[BaseException] = []

    def in_thread() -> None:
        try:
            asyncio.run(all_of_them())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    try:
        until(lambda: failed or all(load.models))
        yield load
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def robot(url: str, var: Path, name: str) -> Robot:
    """An account of that name, signed in; whoever is signed in by that name already is not."""
    return Robot(signed_in(url, var, username=name, password=PASSWORD, timeout_s=120), url)


def signed_in(
    url: str, var: Path, *, username: str, password: str, timeout_s: float
) -> httpx.Client:
    """A client of the HTTP API as an account, which is made, or given this password."""
    known = command_line(var, "user", "list").split()
    act = ("user", "password") if username in known else ("user", "add")
    command_line(var, *act, "--password-stdin", username, stdin=password)
    client = httpx.Client(base_url=url, headers={"Origin": url}, timeout=timeout_s)
    client.get("/api/session")
    answer = client.post(
        "/api/session",
        json={"username": username, "password": password},
        headers={"X-CSRFToken": client.cookies["csrftoken"]},
    )
    answer.raise_for_status()
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    return client


def command_line(var: Path, *arguments: str, stdin: str = "") -> str:
    """What `delineate` says for the installation in a folder."""
    command, *rest = arguments
    # Where its parts listen stands in its folder, whatever this process has been told.
    elsewhere = ("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "DJANGO_SETTINGS_MODULE")
    done = subprocess.run(
        [*CLI, command, "--var", str(var), *rest],
        env={name: value for name, value in os.environ.items() if name not in elsewhere},
        input=f"{stdin}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(claim: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.5)
