"""A whole turn of the loop on a running system: annotate, learn, judge, promote, and click less.

    delineate up
    python -m benchmarks.loop IMAGES --url http://127.0.0.1:8700 --var var

IMAGES is a folder with ``image/`` and ``label/`` (label maps of the same names, PATIENT_SLICE.png)
of abdominal CT, as IMIS-Bench gives BTCV; the validation patients are the eight whose slices judge.
It begins with the shipped model that has never seen abdominal CT. Robots delineate by the same
socket as people: the first point in the middle of the structure, further ones in the middle of what
is most wrong, and what three points do not reach is drawn. Twenty slices of the other patients are
learnt from. Clicks are counted before and after on the validation patients; intervals are over
patients. Prints a table in Markdown, and leaves its project behind.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import time
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import websockets
from PIL import Image

from benchmarks.peers import _delineate as cli
from delineate.learning.gate import interval
from mlworker.contract import masks
from mlworker.contract.masks import RunLengths
from mlworker.training.metrics import dice
from mlworker.training.prompts import worst_point

WITHOUT_BTCV: Final = Path("mlworker/recipes/without_btcv.safetensors")
SLICES: Final = 20
TARGET: Final = 0.85
MOST_CLICKS: Final = 10
SMALLEST: Final = 400  # pixels of 512 x 512; less is nothing at 256
ROBOT_CLICKS: Final = 3
PATIENCE_S: Final = 3600.0
PASSWORD: Final = "a-robots-password"

Mask = npt.NDArray[np.bool_]


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


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--judging", type=Path, help="a file with the validation patients' names")
    parser.add_argument("--url", default="http://127.0.0.1:8700")
    parser.add_argument("--var", type=Path, default=Path("var"))
    parser.add_argument("--checkpoint", type=Path, default=WITHOUT_BTCV)
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--trainable", default="everything")
    parser.add_argument("--rate", type=float, default=1e-4)
    arguments = parser.parse_args()
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """A turn of the loop."""
    images = sorted((arguments.images / "image").glob("*.png"))
    judging = _judging(arguments, images)
    learnt = [path for path in images if _patient(path) not in judging]
    learnt = sorted(random.Random(0).sample(learnt, min(arguments.slices, len(learnt))))
    judged = [path for path in images if _patient(path) in judging]
    values = sorted({int(v) for path in images for v in np.unique(_labels(path)) if v})

    lead, reviewer = (_robot(arguments, name) for name in ("loop-lead", "loop-reviewer"))
    digest = cli(arguments.var, "model", "add", str(arguments.checkpoint)).split()[0]
    project = lead.post("/api/projects", {"name": f"Loop {time.strftime('%H:%M:%S')}"})["id"]
    lead.post(f"/api/projects/{project}/members", {"username": "loop-reviewer", "role": "reviewer"})
    for value in values:
        color = "#{:02x}{:02x}{:02x}".format(*random.Random(value).choices(range(256), k=3))
        lead.post(f"/api/projects/{project}/labels", {"name": f"organ {value}", "color": color})
    address = f"/api/projects/{project}"
    lead.post(f"{address}/promotions", {"change": "pin", "digest": digest})
    settings = lead.get(f"{address}/learning")["settings"] | {
        "schedule": "off",
        "trainable": arguments.trainable,
        "learning_rate": arguments.rate,
        "epochs": 1000,
        "budget_minutes": arguments.minutes,
    }
    lead.put(f"{address}/learning/settings", settings)

    tasks: dict[Path, dict[str, Any]] = {}
    for part, paths in (("train", learnt), ("held_out", judged)):
        tasks |= _sent(lead, project, paths)
        subjects = [
            each["pseudonym"]
            for each in lead.get(f"{address}/learning/parts")
            if each["part"] is None
        ]
        lead.post(f"{address}/learning/parts", {"pseudonyms": subjects, "part": part})
    _until(lambda: _is_prepared(lead, project))
    print(f"{len(learnt)} slices of {len({_patient(p) for p in learnt})} patients to learn from,")
    print(f"{len(judged)} of {len(judging)} to judge by\n", flush=True)

    before = asyncio.run(_measure(lead, tasks, judged))
    began = time.monotonic()
    for paths, clicks in ((learnt, ROBOT_CLICKS), (judged, 1)):
        asyncio.run(_annotate(lead, tasks, paths, clicks=clicks))
    for path in (path for path in [*learnt, *judged] if _truths(path, tasks[path])):
        lead.post(f"/api/tasks/{tasks[path]['id']}/submit")
        reviewer.post(f"/api/tasks/{tasks[path]['id']}/accept", {})
    print(f"annotated by robots in {time.monotonic() - began:.0f} s", flush=True)

    begun = lead.post(f"{address}/runs")["id"]
    _until(lambda: lead.get(f"/api/runs/{begun}")["state"] in ("done", "failed"))
    told = lead.get(f"/api/runs/{begun}")
    assert told["state"] == "done", told["error_message"]
    print(f"{told['step']} steps in {told['seconds']:.0f} s. {told['judgement']['sentence']}\n")
    print("| label | masks | Dice before | after | difference |\n|---|---|---|---|---|")
    for each in told["judgement"]["labels"]:
        low, high = each["low"], each["high"]
        print(
            f"| {each['label']} | {each['masks']} | {each['opponent_dice']:.3f} | "
            f"{each['candidate_dice']:.3f} | {each['difference']:+.3f} "
            + (f"[{low:+.3f}, {high:+.3f}] |" if low is not None else "|")
        )
    change = "promote" if told["verdict"] == "better" else "pin"
    wanted = {"change": change, "digest": told["candidate"]["digest"]}
    began = time.monotonic()
    lead.post(f"{address}/promotions", wanted)
    _until(lambda: lead.get(f"{address}/promotions")[0]["state"] == "done")
    for path in (path for path in judged if _truths(path, tasks[path])):
        reviewer.post(f"/api/tasks/{tasks[path]['id']}/reopen", {"comment": "again"})
    _until(lambda: _is_prepared(lead, project))
    print(f"\n{change}d, and all encoded, in {time.monotonic() - began:.0f} s\n", flush=True)
    after = asyncio.run(_measure(lead, tasks, judged))
    _print(before, after)


def _print(before: list[Counted], after: list[Counted]) -> None:
    patients = [each.patient for each in before]
    print(f"| on {len(before)} masks of {len(set(patients))} patients | before | after | change |")
    print("|---|---|---|---|")
    for what, old, new in (
        (
            f"clicks to Dice {TARGET}, of {MOST_CLICKS}",
            [each.clicks for each in before],
            [each.clicks for each in after],
        ),
        (
            "Dice after one click",
            [each.first_dice for each in before],
            [each.first_dice for each in after],
        ),
    ):
        shown = [_with_interval(np.array(values, float), patients) for values in (old, new)]
        change = np.array(new, float) - np.array(old, float)
        relative = change.mean() / np.mean(old)
        print(
            f"| {what} | {shown[0]} | {shown[1]} | {_with_interval(change, patients)}, "
            f"{relative:+.0%} |"
        )


def _with_interval(values: npt.NDArray[np.float64], patients: list[str]) -> str:
    low, high = interval(values, patients, confidence=0.95, seed=0)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True)
class Counted:
    """One mask: clicks that it took, and Dice after the first."""

    patient: str
    clicks: int
    first_dice: float


async def _measure(
    robot: Robot, tasks: dict[Path, dict[str, Any]], paths: Iterable[Path]
) -> list[Counted]:
    counted = []
    for path in paths:
        async with Desk(robot, tasks[path]) as desk:
            for label_id, truth in _truths(path, tasks[path]):
                dices = await desk.click(label_id, truth, most=MOST_CLICKS)
                reached = [number for number, each in enumerate(dices, 1) if each >= TARGET]
                clicks = reached[0] if reached else MOST_CLICKS
                counted.append(Counted(_patient(path), clicks, dices[0]))
    return counted


async def _annotate(
    robot: Robot, tasks: dict[Path, dict[str, Any]], paths: Iterable[Path], *, clicks: int
) -> None:
    for path in paths:
        async with Desk(robot, tasks[path]) as desk:
            for label_id, truth in _truths(path, tasks[path]):
                began = time.monotonic()
                await desk.click(label_id, truth, most=clicks)
                version = await desk.correct(label_id, truth)
                await asyncio.to_thread(
                    robot.post,
                    f"/api/tasks/{tasks[path]['id']}/revisions",
                    {
                        "slice_id": desk.slice_id,
                        "label_id": label_id,
                        "version": version,
                        "active_seconds": time.monotonic() - began,
                    },
                )


class Desk:
    """An open socket on the only slice of a task."""

    def __init__(self, robot: Robot, task: dict[str, Any]) -> None:
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


def _sent(lead: Robot, project: str, paths: list[Path]) -> dict[Path, dict[str, Any]]:
    """Upload images, a subject for each patient; the task of each image."""
    address = f"/api/projects/{project}"
    before = {task["id"] for task in lead.get(f"{address}/tasks")}
    for path in paths:  # one by one, so that each one's task is known
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.write(path, path.name)
            archive.writestr("subjects.csv", f"file,subject\n{path.name},{_patient(path)}\n")
        upload = lead.post(
            f"{address}/uploads", files={"files": ("images.zip", buffer.getvalue())}
        )["id"]
        _until(lambda upload=upload: lead.get(f"/api/uploads/{upload}")["state"] == "done")
    # A picture may show a name, and waits for somebody to look at it; these are known to show none.
    held = lead.get(f"{address}/quarantine")
    seen = [{"series_id": each["id"], "slices": each["slices"]} for each in held]
    lead.post(f"{address}/quarantine/release", {"series": seen})
    _until(lambda: len(lead.get(f"{address}/tasks")) == len(before) + len(paths))
    tasks = {task["id"]: task for task in lead.get(f"{address}/tasks") if task["id"] not in before}
    ordered = sorted(tasks.values(), key=lambda task: task["study_number"])
    return {
        path: lead.get(f"/api/tasks/{task['id']}")
        for path, task in zip(paths, ordered, strict=True)
    }


def _is_prepared(lead: Robot, project: str) -> bool:
    told = lead.get(f"/api/projects/{project}/progress")
    return bool(told["prepared_slices"] == told["slices"])


def _truths(path: Path, task: dict[str, Any]) -> list[tuple[str, Mask]]:
    """The structures on a slice that are large enough, by label."""
    labels = _labels(path)
    ids = {label["name"]: label["id"] for label in task["labels"]}
    found = [(value, labels == value) for value in np.unique(labels) if value]
    return [(ids[f"organ {value}"], truth) for value, truth in found if truth.sum() >= SMALLEST]


def _labels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path.parents[1] / "label" / path.name) as picture:
        return np.asarray(picture)


def _patient(path: Path) -> str:
    return path.stem.rpartition("_")[0]


def _judging(arguments: argparse.Namespace, images: list[Path]) -> set[str]:
    if arguments.judging:
        return set(arguments.judging.read_text().split())
    # The last in the alphabet: any eight will do, as long as nobody chooses them by the figures.
    return set(sorted({_patient(path) for path in images})[-8:])


def _robot(arguments: argparse.Namespace, name: str) -> Robot:
    known = cli(arguments.var, "user", "list").split()
    act = ("user", "password") if name in known else ("user", "add")
    cli(arguments.var, *act, "--password-stdin", name, stdin=PASSWORD)
    client = httpx.Client(base_url=arguments.url, headers={"Origin": arguments.url}, timeout=120)
    client.get("/api/session")
    signed_in = client.post(
        "/api/session",
        json={"username": name, "password": PASSWORD},
        headers={"X-CSRFToken": client.cookies["csrftoken"]},
    )
    signed_in.raise_for_status()
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    return Robot(client, arguments.url)


def _until(claim: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
