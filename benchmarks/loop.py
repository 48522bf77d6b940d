"""A whole turn of the loop on a running system: annotate, learn, judge, promote, and click less.

    delineate up
    python -m benchmarks.loop IMAGES --url http://127.0.0.1:8700 --var var

IMAGES is a folder with ``image/`` and ``label/`` (label maps of the same names, PATIENT_SLICE.png)
of abdominal CT, as IMIS-Bench gives BTCV; the manifest.csv beside it says who is for validation,
and those judge.

It begins with the shipped model that has never seen abdominal CT. Robots delineate by the same
socket as people: the first point in the middle of the structure, further ones in the middle of what
is most wrong, and what three points do not reach is drawn. Twenty slices of the other patients are
learnt from. Clicks are counted before and after on the validation patients; intervals are over
patients. Prints a table in Markdown, and leaves its project behind.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import random
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.robots import TARGET, Desk, Mask, Robot, command_line, robot, until
from delineate.learning.gate import interval

WITHOUT_BTCV: Final = Path("mlworker/recipes/without_btcv.safetensors")
SLICES: Final = 20
MOST_CLICKS: Final = 10
SMALLEST: Final = 400  # pixels of 512 x 512; less is nothing at 256
ROBOT_CLICKS: Final = 3


@dataclass(frozen=True)
class Asked:
    """What is to be done, and where."""

    images: Path
    url: str
    var: Path
    checkpoint: Path = WITHOUT_BTCV
    slices: int = SLICES
    judging_slices: int | None = None  # of each patient who judges; None: all
    minutes: int = 10
    epochs: int = 1000  # more than there is time for
    trainable: str | None = None  # None: what a new project has
    rate: float | None = None


@dataclass(frozen=True)
class Turn:
    """A project in which a turn is done."""

    lead: Robot
    reviewer: Robot
    project: str
    tasks: dict[Path, dict[str, Any]]  # of an image
    learnt: list[Path]
    judged: list[Path]

    @property
    def address(self) -> str:
        """Of the project."""
        return f"/api/projects/{self.project}"

    def close(self) -> None:
        """The robots leave."""
        self.lead.client.close()
        self.reviewer.client.close()

    def annotated(self) -> Iterator[Path]:
        """Images that show something to delineate."""
        for path in (*self.learnt, *self.judged):
            if truths_of(self, path):
                yield path


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8700")
    parser.add_argument("--var", type=Path, default=Path("var"))
    parser.add_argument("--checkpoint", type=Path, default=WITHOUT_BTCV)
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--trainable")
    parser.add_argument("--rate", type=float)
    run(Asked(**vars(parser.parse_args())))


def run(asked: Asked) -> None:
    """A turn of the loop, told in Markdown."""
    turn = begin(asked)
    print(f"{len(turn.learnt)} slices of {len(set(map(_patient, turn.learnt)))} patients to learn")
    print(f"from, {len(turn.judged)} of {len(set(map(_patient, turn.judged)))} to judge by\n")
    before = measure(turn)

    began = time.monotonic()
    annotate(turn)
    print(f"annotated by robots in {time.monotonic() - began:.0f} s", flush=True)

    told = learn(turn)
    print(f"{told['step']} steps in {told['seconds']:.0f} s. {told['judgement']['sentence']}\n")
    print("| label | masks | Dice before | after | difference |\n|---|---|---|---|---|")
    for each in told["judgement"]["labels"]:
        low, high = each["low"], each["high"]
        print(
            f"| {each['label']} | {each['masks']} | {each['opponent_dice']:.3f} | "
            f"{each['candidate_dice']:.3f} | {each['difference']:+.3f} "
            + (f"[{low:+.3f}, {high:+.3f}] |" if low is not None else "|")
        )

    began = time.monotonic()
    promote(turn, told)
    reopen(turn)
    print(f"\nanswers, with all encoded, after {time.monotonic() - began:.0f} s\n", flush=True)
    _print(before, measure(turn))


def begin(asked: Asked) -> Turn:
    """A project with images of both parts, prepared for the checkpoint."""
    images = sorted((asked.images / "image").glob("*.png"))
    judging = _judging(asked.images)
    learnt = [path for path in images if _patient(path) not in judging]
    learnt = sorted(random.Random(0).sample(learnt, min(asked.slices, len(learnt))))
    judged = [
        path
        for patient in sorted(judging)
        for path in [i for i in images if _patient(i) == patient][: asked.judging_slices]
    ]
    values = sorted({int(v) for path in (*learnt, *judged) for v in np.unique(_labels(path)) if v})

    lead, reviewer = (robot(asked.url, asked.var, name) for name in ("loop-lead", "loop-reviewer"))
    digest = command_line(asked.var, "model", "add", str(asked.checkpoint)).split()[0]
    project = lead.post("/api/projects", {"name": f"Loop {time.strftime('%H:%M:%S')}"})["id"]
    turn = Turn(lead, reviewer, project, {}, learnt, judged)
    lead.post(f"{turn.address}/members", {"username": "loop-reviewer", "role": "reviewer"})
    for value in values:
        color = "#{:02x}{:02x}{:02x}".format(*random.Random(value).choices(range(256), k=3))
        lead.post(f"{turn.address}/labels", {"name": f"organ {value}", "color": color})
    lead.post(f"{turn.address}/promotions", {"change": "pin", "digest": digest})
    settings = lead.get(f"{turn.address}/learning")["settings"]
    settings |= {"schedule": "off", "epochs": asked.epochs, "budget_minutes": asked.minutes}
    if asked.trainable is not None:
        settings["trainable"] = asked.trainable
    if asked.rate is not None:
        settings["learning_rate"] = asked.rate
    lead.put(f"{turn.address}/learning/settings", settings)
    for part, paths in (("train", learnt), ("held_out", judged)):
        turn.tasks.update(_sent(lead, project, paths))
        parts = lead.get(f"{turn.address}/learning/parts")
        subjects = [each["pseudonym"] for each in parts if each["part"] is None]
        lead.post(f"{turn.address}/learning/parts", {"pseudonyms": subjects, "part": part})
    until(lambda: _is_prepared(turn))
    return turn


def annotate(turn: Turn) -> None:
    """Robots delineate everything, and a reviewer accepts it."""
    for paths, clicks in ((turn.learnt, ROBOT_CLICKS), (turn.judged, 1)):
        asyncio.run(_annotate(turn, paths, clicks=clicks))
    for path in turn.annotated():
        turn.lead.post(f"/api/tasks/{turn.tasks[path]['id']}/submit")
        turn.reviewer.post(f"/api/tasks/{turn.tasks[path]['id']}/accept", {})


def learn(turn: Turn) -> dict[str, Any]:
    """A run to its end."""
    turn.lead.post(f"{turn.address}/runs")
    return learnt(turn)


def learnt(turn: Turn) -> dict[str, Any]:
    """What came of the last run, once it has ended."""
    run = until_ended(turn)
    told: dict[str, Any] = turn.lead.get(f"/api/runs/{run}")
    assert told["state"] == "done", told["error_message"]
    return told


def until_ended(turn: Turn) -> str:
    """Wait for the end of the last run; its id."""
    run = str(turn.lead.get(f"{turn.address}/runs")[0]["id"])
    until(lambda: turn.lead.get(f"/api/runs/{run}")["state"] in ("done", "failed"))
    return run


def promote(turn: Turn, told: dict[str, Any]) -> None:
    """Let the candidate answer, whatever the gate says of so few masks."""
    change = "promote" if told["verdict"] == "better" else "pin"
    wanted = {"change": change, "digest": told["candidate"]["digest"]}
    turn.lead.post(f"{turn.address}/promotions", wanted)
    until(lambda: turn.lead.get(f"{turn.address}/promotions")[0]["state"] == "done")


def reopen(turn: Turn) -> None:
    """What was accepted can be worked on again, and is prepared for who answers now."""
    for path in turn.annotated():
        turn.reviewer.post(f"/api/tasks/{turn.tasks[path]['id']}/reopen", {"comment": "again"})
    until(lambda: _is_prepared(turn))


def measure(turn: Turn) -> list[Counted]:
    """Clicks on every mask that judges, by the model that answers now."""
    return asyncio.run(_measure(turn))


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


async def _measure(turn: Turn) -> list[Counted]:
    counted = []
    for path in turn.judged:
        async with Desk(turn.lead, turn.tasks[path]) as desk:
            for label_id, truth in truths_of(turn, path):
                dices = await desk.click(label_id, truth, most=MOST_CLICKS)
                reached = [number for number, each in enumerate(dices, 1) if each >= TARGET]
                clicks = reached[0] if reached else MOST_CLICKS
                counted.append(Counted(_patient(path), clicks, dices[0]))
    return counted


async def _annotate(turn: Turn, paths: Iterable[Path], *, clicks: int) -> None:
    for path in paths:
        task = turn.tasks[path]
        async with Desk(turn.lead, task) as desk:
            for label_id, truth in truths_of(turn, path):
                began = time.monotonic()
                await desk.click(label_id, truth, most=clicks)
                version = await desk.correct(label_id, truth)
                await asyncio.to_thread(
                    turn.lead.post,
                    f"/api/tasks/{task['id']}/revisions",
                    {
                        "slice_id": desk.slice_id,
                        "label_id": label_id,
                        "version": version,
                        "active_seconds": time.monotonic() - began,
                    },
                )


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
        until(partial(_is_taken_in, lead, upload))
    # A picture may show a name, and waits for somebody to look at it; these are known to show none.
    held = lead.get(f"{address}/quarantine")
    seen = [{"series_id": each["id"], "slices": each["slices"]} for each in held]
    lead.post(f"{address}/quarantine/release", {"series": seen})
    until(lambda: len(lead.get(f"{address}/tasks")) == len(before) + len(paths))
    tasks = {task["id"]: task for task in lead.get(f"{address}/tasks") if task["id"] not in before}
    ordered = sorted(tasks.values(), key=lambda task: task["study_number"])
    return {
        path: lead.get(f"/api/tasks/{task['id']}")
        for path, task in zip(paths, ordered, strict=True)
    }


def _is_taken_in(lead: Robot, upload: str) -> bool:
    return bool(lead.get(f"/api/uploads/{upload}")["state"] == "done")


def _is_prepared(turn: Turn) -> bool:
    told = turn.lead.get(f"{turn.address}/progress")
    return bool(told["prepared_slices"] == told["slices"])


def truths_of(turn: Turn, path: Path) -> list[tuple[str, Mask]]:
    """The structures on a slice that are large enough, by label."""
    labels = _labels(path)
    ids = {label["name"]: label["id"] for label in turn.tasks[path]["labels"]}
    found = [(value, labels == value) for value in np.unique(labels) if value]
    return [(ids[f"organ {value}"], truth) for value, truth in found if truth.sum() >= SMALLEST]


def _labels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path.parents[1] / "label" / path.name) as picture:
        return np.asarray(picture)


def _patient(path: Path) -> str:
    return path.stem.rpartition("_")[0]


def _judging(images: Path) -> set[str]:
    """The validation patients of the collection, as the list beside it says."""
    with (images.parent / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == images.name]
    return {_patient(Path(row["image"])) for row in rows if row["split"] == "val"}


if __name__ == "__main__":
    main()
