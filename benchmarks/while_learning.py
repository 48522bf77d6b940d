"""What a click costs while a fine-tuning runs, and how long a roll-back takes under load.

    delineate up
    python -m benchmarks.while_learning IMAGES --url http://127.0.0.1:8700 --var var

IMAGES as for benchmarks.loop. A robot clicks without a pause on one prepared slice: a block of
clicks with nobody learning, then one with a fine-tuning under way, by turns, because machines are
noisy; each fine-tuning is stopped after its block. At last the model is changed and rolled back
while several sessions click. Prints a table in Markdown, and leaves its project behind.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loop
from benchmarks.robots import Desk, Mask, Task, under_load, until

CLICKS = 150
WARM_UP = 20
SESSIONS = 5


def main() -> None:
    """Both figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8700")
    parser.add_argument("--var", type=Path, default=Path("var"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    asked = loop.Asked(arguments.images, arguments.url, arguments.var, judging_slices=1)
    turn = loop.begin(asked)
    loop.annotate(replace(turn, judged=[]))  # on those the robots go on clicking
    work = [
        (turn.tasks[path], *truths[0])
        for path in turn.judged
        if (truths := loop.truths_of(turn, path))
    ]

    blocks: dict[str, list[list[float]]] = {"nobody learns": [], "a fine-tuning runs": []}
    for _ in range(arguments.rounds):
        blocks["nobody learns"].append(asyncio.run(_block(turn, work[0])))
        run = _begun(turn)
        blocks["a fine-tuning runs"].append(asyncio.run(_block(turn, work[0])))
        turn.lead.post(f"/api/runs/{run}/cancel")
        loop.until_ended(turn)
    print(f"{arguments.rounds} blocks of {CLICKS} clicks each, by turns\n")
    print("| a click while | p50 ms | p95 ms | p50 of each block |\n|---|---|---|---|")
    for what, of in blocks.items():
        all_of_them = np.concatenate(of)
        print(
            f"| {what} | {np.median(all_of_them):.1f} | {np.percentile(all_of_them, 95):.1f} | "
            f"{', '.join(f'{np.median(block):.1f}' for block in of)} |"
        )
    quiet, learning = blocks.values()
    ratios = [np.median(b) / np.median(a) for a, b in zip(quiet, learning, strict=True)]
    print(f"\nlearning / nobody learning, p50: {np.median(ratios):.2f}", flush=True)

    default = next(m for m in turn.lead.get(f"{turn.address}/models") if m["is_default"])
    seconds = {}
    with under_load(turn.lead, work[:SESSIONS]) as load:
        for change, digest in (("pin", default["digest"]), ("roll_back", None)):
            wanted = {"change": change, "digest": digest}
            turn.lead.post(f"{turn.address}/promotions", wanted)
            until(lambda: turn.lead.get(f"{turn.address}/promotions")[0]["state"] == "done")
            (done, *_) = turn.lead.get(f"{turn.address}/promotions")
            seconds[change] = _seconds(done)
    assert all(len(models) == 1 for models in load.models), "a session has changed its model"
    print(f"\nwith {SESSIONS} sessions clicking without a pause: another model answers after")
    print(f"{seconds['pin']:.1f} s, the one before again after {seconds['roll_back']:.1f} s;")
    slow = np.percentile(load.milliseconds, 95)
    print(f"{len(load.milliseconds)} clicks, none refused, p95 {slow:.0f} ms")


async def _block(turn: loop.Turn, work: tuple[Task, str, Mask]) -> list[float]:
    task, label_id, truth = work
    taken = []
    async with Desk(turn.lead, task) as desk:
        for _ in range(WARM_UP + CLICKS):
            began = time.perf_counter()
            await desk.click(label_id, truth, most=1)
            taken.append((time.perf_counter() - began) * 1e3)
    return taken[WARM_UP:]


def _begun(turn: loop.Turn) -> str:
    """A run that has made its first step."""
    run = str(turn.lead.post(f"{turn.address}/runs")["id"])
    until(lambda: turn.lead.get(f"/api/runs/{run}")["step"])
    return run


def _seconds(promotion: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(promotion[f"{e}_at"]) for e in ("created", "finished"))
    return (ended - began).total_seconds()


if __name__ == "__main__":
    main()
