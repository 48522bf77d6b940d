"""A whole turn of the loop that learns: robots delineate by the real socket, a lead trains.

The long version of it, with all of the validation patients, is benchmarks/loop.py.
"""

from __future__ import annotations

import asyncio
import csv
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks import loop
from benchmarks.robots import PASSWORD, Desk, Load, under_load
from tests.e2e.story import keep_pictures, play
from tests.system import free_port, up

FRONTEND = Path(__file__).parents[2] / "frontend"
BTCV: Final = Path("data/images/btcv_imis")
SHIPPED: Final = Path(__file__).parents[2] / "mlworker/recipes/default.safetensors"
SESSIONS: Final = 3
LEARNT, LEFT = 6, 3  # slices to learn from, and some that nobody has delineated
PICTURES: Final = ("suggested-next", "run", "model", "comparison")


async def test_a_project_learns_and_can_go_back(
    folder: Path, chromium: str, shared_folder: Path
) -> None:
    images = shared_folder / BTCV
    if not images.is_dir():
        images = _drawn(folder / "drawn")
    with (
        up(folder, port=free_port(), pages=FRONTEND / "dist") as system,
        ExitStack() as at_end,
    ):
        await system.until_ready()
        added = system.delineate("model", "add", str(SHIPPED))
        assert added.returncode == 0, added.stderr
        asked = loop.Asked(
            images=images,
            url=system.url,
            var=system.var,
            slices=LEARNT + LEFT,
            judging_slices=1,
            epochs=4,
        )
        turn = await asyncio.to_thread(loop.begin, asked)
        at_end.callback(turn.close)
        turn = replace(turn, learnt=turn.learnt[:LEARNT])  # the others nobody delineates
        answering = [await _answers(turn)]
        await asyncio.to_thread(loop.annotate, turn)

        told = {
            "url": system.url,
            "browser": chromium,
            "project": turn.project,
            "person": {"username": "loop-lead", "password": PASSWORD},
            "folder": str(folder),
        }
        loads: list[Load] = []

        async def it_trains() -> None:
            await asyncio.to_thread(loop.learnt, turn)

        async def another_model_answers() -> None:
            await asyncio.to_thread(loop.reopen, turn)
            answering.append(await _answers(turn))

        with ExitStack() as at_work:

            async def people_are_at_work() -> None:
                clicking = _clicking(turn)
                loads.append(await asyncio.to_thread(at_work.enter_context, clicking))

            async def the_one_before_answers_again() -> None:
                answering.append(await _answers(turn))
                await asyncio.to_thread(at_work.close)

            pauses = {
                "it trains": it_trains,
                "another model answers": another_model_answers,
                "people are at work": people_are_at_work,
                "the one before answers again": the_one_before_answers_again,
            }
            await play("learning.mjs", told, folder=folder, pauses=pauses)

        (run,) = turn.lead.get(f"{turn.address}/runs")
        details = turn.lead.get(f"/api/runs/{run['id']}")
        assert run["step"] > 0
        assert details["held_out"]["subjects"] <= len(turn.judged)
        assert details["judgement"]["labels"][0]["masks"] == details["held_out"]["masks"]
        before, made = run["parent"]["digest"], run["candidate"]["digest"]
        assert answering == [before, made, before]
        # Whoever was at work meanwhile kept the model that they began with, and was never refused.
        assert [load.models for load in loads] == [[{made}] * SESSIONS]
        events = turn.lead.get(f"{turn.address}/events?limit=200")
        changes = [e["data"]["change"] for e in reversed(events) if e["action"] == "model_answers"]
        assert changes[0] == "pin"
        assert changes[-1] == "roll_back"
    keep_pictures(folder / "shots", PICTURES)


def _clicking(turn: loop.Turn) -> AbstractContextManager[Load]:
    shown = [path for path in turn.judged if loop.truths_of(turn, path)]
    work = [(turn.tasks[path], *loop.truths_of(turn, path)[0]) for path in shown[:SESSIONS]]
    return under_load(turn.lead, work)


async def _answers(turn: loop.Turn) -> str:
    """Whose proposal whoever begins now gets, by digest."""
    path, (label_id, truth) = next(
        (path, truths[0]) for path in turn.judged if (truths := loop.truths_of(turn, path))
    )
    async with Desk(turn.lead, turn.tasks[path]) as desk:
        await desk.click(label_id, truth, most=1)
        return desk.model


def _drawn(folder: Path) -> Path:
    """A collection of discs and squares, where there is no shared data."""
    (folder / "set/image").mkdir(parents=True)
    (folder / "set/label").mkdir()
    rows = []
    for subject in range(9 + 8):
        by = np.random.default_rng(subject)
        y, x = np.mgrid[:256, :256]
        labels = np.zeros((256, 256), np.uint8)
        labels[(x - by.integers(60, 190)) ** 2 + (y - by.integers(60, 190)) ** 2 < 40**2] = 1
        left, top = by.integers(20, 160, 2)
        labels[top : top + 60, left : left + 60] = 2
        image = by.integers(0, 40, labels.shape) + 60 * labels
        name = f"P{subject:03}_1.png"
        Image.fromarray(image.astype(np.uint8)).save(folder / "set/image" / name)
        Image.fromarray(labels).save(folder / "set/label" / name)
        rows.append(("set", f"set/image/{name}", "train" if subject < 9 else "val"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("set", "image", "split"), *rows])
    return folder / "set"
