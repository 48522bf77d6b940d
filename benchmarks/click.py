"""What a click costs: prompts through a real socket of a running system, beside the bare decode.

    python -P benchmarks/click.py --url http://127.0.0.1:8700 --var var

(-P, because this file would stand in the way of the library of the same name.)

Everything is measured in one run, because machines are noisy: the bare decode (prompt encoder, mask
decoder, mask at slice size, run lengths) in this process, on the same checkpoint and embedding,
between the blocks of clicks it is compared with. Prints a table in Markdown. It needs the demo, or
any project with a task whose slices are prepared; it clicks, but saves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
import httpx
import torch
import websockets

from delineate.config import env
from delineate.supervision import running
from mlworker.contract import masks
from mlworker.contract.artifacts import checkpoint_key, embedding_key
from mlworker.contract.messages import (
    MAX_BATCH,
    EncodeItem,
    EncodeSlices,
    Point,
    SliceImage,
    Window,
)
from mlworker.inference.predictor import Predictor
from mlworker.model import checkpoint, sam_med2d

CLICKS = 200
WARM_UP = 20
BLOCK = 20  # clicks, then as many bare decodes, and so on
SESSIONS = (1, 5, 20)
SESSION_SECONDS = 30.0
PROMPT_EVERY_S = 2.0
ENCODE_CLICKS = 100
WINDOWS = 8  # per slice, to fill the encode queue with


@dataclass
class Times:
    """Milliseconds of one kind of thing."""

    values: list[float] = field(default_factory=list)

    def p(self, percent: int) -> float:
        """A percentile."""
        return statistics.quantiles(self.values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True)
class Target:
    """A task to click on."""

    url: str
    cookies: dict[str, str]
    task: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of its slices."""
        return self.task["series"]["rows"], self.task["series"]["columns"]

    @property
    def prepared(self) -> list[dict[str, Any]]:
        """Its slices that answer at once."""
        return [each for each in self.task["series"]["slices"] if each["prepared"]]


class Workspace:
    """One open socket, as the page has it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._n = 0

    async def __aenter__(self) -> Workspace:
        target = self._target
        cookies = "; ".join(f"{name}={value}" for name, value in target.cookies.items())
        self._socket = await websockets.connect(
            f"{target.url.replace('http', 'ws', 1)}/ws/tasks/{target.task['id']}",
            additional_headers={"Cookie": cookies, "Origin": target.url},
            max_size=None,
        )
        await self._until("welcome")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def click(self) -> tuple[float, dict[str, Any]]:
        """A point on the next prepared slice: milliseconds from sent to parsed, and the answer."""
        rows, columns = self._target.size
        slices = self._target.prepared
        self._n += 1
        prompt = {
            "kind": "prompt",
            "request_id": str(uuid.uuid4()),
            "slice_id": slices[self._n % len(slices)]["id"],
            "label_id": self._target.task["labels"][0]["id"],
            "prompts": {
                "points": [
                    {
                        "x": columns * (0.3 + 0.4 * (self._n % 7) / 7),
                        "y": rows * (0.3 + 0.4 * (self._n % 5) / 5),
                        "positive": True,
                    }
                ],
                "box": None,
            },
            "refine": None,
        }
        started = time.perf_counter()
        await self._socket.send(json.dumps(prompt))
        answer = await self._until("proposal", "preparing", "refused")
        took_ms = (time.perf_counter() - started) * 1e3
        assert answer["kind"] == "proposal", answer
        return took_ms, answer

    async def _until(self, *kinds: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await self._socket.recv())
            if message["kind"] in kinds:
                return message


async def measure(target: Target, *, bare: Callable[[], float], queue: EncodeQueue) -> None:
    """All of it, printed as it comes."""
    rows, columns = target.size
    print(f"{columns} x {rows} pixels, {len(target.prepared)} prepared slices, {CLICKS} clicks\n")
    print("| what | p50 ms | p95 ms | p50 / bare decode |")
    print("|---|---|---|---|")
    async with Workspace(target) as workspace:
        for _ in range(WARM_UP):
            await workspace.click()
            bare()
        clicks, decodes, parts = Times(), Times(), []
        for _ in range(CLICKS // BLOCK):
            for _ in range(BLOCK):
                took_ms, answer = await workspace.click()
                clicks.values.append(took_ms)
                parts.append(answer)
            decodes.values += [bare() for _ in range(BLOCK)]
        line("bare decode, in this process", decodes, decodes)
        line("click, one session", clicks, decodes)
        for part in ("queue_ms", "load_ms", "decode_ms"):
            line(f"– of it {part[:-3]}", Times([a["timing"][part] for a in parts]), decodes)
        line("– of it in the server, all", Times([a["server_ms"] for a in parts]), decodes)
    for sessions in SESSIONS:
        spread = await many(target, sessions=sessions)
        line(f"click, {sessions} at one prompt every {PROMPT_EVERY_S:g} s", spread, decodes)
    async with Workspace(target) as workspace:
        queued = await asyncio.to_thread(queue.fill)
        busy = Times([(await workspace.click())[0] for _ in range(ENCODE_CLICKS)])
        line(f"click, encode queue full ({queued} slices)", busy, decodes)
    print(f"\nEncode queue full / quiet, p50: {busy.p(50) / clicks.p(50):.2f}")


async def many(target: Target, *, sessions: int) -> Times:
    """Sessions that click now and then, not in step."""
    times = Times()

    async def one(number: int) -> None:
        async with Workspace(target) as workspace:
            await asyncio.sleep(PROMPT_EVERY_S * number / sessions)
            until = time.perf_counter() + SESSION_SECONDS
            while time.perf_counter() < until:
                took_ms, _ = await workspace.click()
                times.values.append(took_ms)
                await asyncio.sleep(max(0.0, PROMPT_EVERY_S - took_ms / 1e3))

    await asyncio.gather(*(one(number) for number in range(sessions)))
    return times


def line(what: str, times: Times, bare: Times) -> None:
    """A row of the table."""
    ratio = times.p(50) / bare.p(50)
    print(f"| {what} | {times.p(50):.1f} | {times.p(95):.1f} | {ratio:.2f} |", flush=True)


def bare_decode(weights: Path, *, rows: int, columns: int) -> Callable[[], float]:
    """A function that decodes one point as the worker does, and says how many milliseconds."""
    opened = checkpoint.Checkpoint(weights)
    predictor = Predictor(opened.prompt_encoder(), opened.mask_decoder())
    embedding = torch.randn(sam_med2d.CHANNELS, 16, 16)
    point = Point(x=columns * 0.4, y=rows * 0.4, positive=True)

    def decode() -> float:
        started = time.perf_counter()
        prediction = predictor.predict(embedding, height=rows, width=columns, points=(point,))
        masks.encode(prediction.mask)
        return (time.perf_counter() - started) * 1e3

    return decode


def sign_in(url: str, username: str, password: str) -> httpx.Client:
    """A signed-in client."""
    client = httpx.Client(base_url=url, headers={"Origin": url})
    client.get("/api/session")
    answer = client.post(
        "/api/session",
        json={"username": username, "password": password},
        headers={"X-CSRFToken": client.cookies["csrftoken"]},
    )
    answer.raise_for_status()
    return client


def find_target(client: httpx.Client, url: str) -> Target:
    """The task with the most prepared slices."""
    tasks = [
        task
        for project in client.get("/api/projects").json()
        for task in client.get(f"/api/projects/{project['id']}/tasks").json()
    ]
    chosen = max(tasks, key=lambda task: task["prepared"], default=None)
    if chosen is None or not chosen["prepared"]:
        raise SystemExit("No slice is prepared yet; wait for the demo to be encoded.")
    detail = client.get(f"/api/tasks/{chosen['id']}").json()
    return Target(url, dict(client.cookies), detail)


def main() -> None:
    """Measure the running system."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8700")
    parser.add_argument("--var", type=Path, default=Path("var"))
    arguments = parser.parse_args()
    torch.set_num_threads(env.Machine.read().interactive_threads)  # what the worker has
    env.adopt(running.environment(arguments.var))
    django.setup()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    username, password = (arguments.var / "demo-sign-ins.txt").read_text().splitlines()[0].split()
    target = find_target(sign_in(arguments.url, username, password), arguments.url)
    rows, columns = target.size
    weights = arguments.var / "objects" / checkpoint_key(target.task["model"]["digest"])
    queue = EncodeQueue(target)
    try:
        asyncio.run(
            measure(target, bare=bare_decode(weights, rows=rows, columns=columns), queue=queue)
        )
    finally:
        queue.clear()


class EncodeQueue:
    """Work for the encode queue: the demo's slices with windows that nobody uses."""

    def __init__(self, target: Target) -> None:
        # The models can be imported only now, when Django knows the running installation.
        from delineate import storage, worker
        from delineate.studies.models import Slice
        from delineate.studies.selectors import image_of

        self._send, self._delete = worker.send, storage.delete
        self._digest = target.task["model"]["digest"]
        slices = Slice.objects.filter(series_id=target.task["series"]["id"])
        self._images = [
            image_of(each).model_copy(update={"window": Window(centre=40, width=300 + number / 7)})
            for each in slices.select_related("series")
            for number in range(WINDOWS)
        ]

    def fill(self) -> int:
        """Send it all at once; how many slices."""
        for batch in _batches(self._images):
            items = tuple(EncodeItem(encoding_id=str(uuid.uuid4()), image=i) for i in batch)
            self._send(EncodeSlices(model_digest=self._digest, items=items))
        return len(self._images)

    def clear(self) -> None:
        """Remove what came of it."""
        for image in self._images:
            self._delete(embedding_key(image, model_digest=self._digest))


def _batches(images: list[SliceImage]) -> Iterator[list[SliceImage]]:
    for first in range(0, len(images), MAX_BATCH):
        yield images[first : first + MAX_BATCH]


if __name__ == "__main__":
    main()
