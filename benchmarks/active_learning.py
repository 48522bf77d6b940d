"""Which slices to annotate next: the strategies against chance, on two collections.

Takes a folder that `mlworker curate` wrote. Each collection is judged with a checkpoint that has
not learnt the images: BTCV's abdomens with the one that has never seen any, the hippocampi of the
validation's subjects with the default model. Prints a table in Markdown for each, and writes the
curves. About twenty minutes on two cores that have nothing else to do:

    nice -n 10 python -m benchmarks.active_learning --data DATA --out CURVES
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import torch

from mlworker.training.active_learning import (
    Plan,
    Point,
    about_parent,
    in_words,
    simulate,
    write_curves,
)
from mlworker.training.samples import SAMPLES_CSV, Sample, read_label2image, read_samples

PLAN: Final = Plan(rounds=2, per_round=6, seeds=5, most_slices=40, most_masks=60)


@dataclass(frozen=True)
class Collection:
    """What is annotated, and by a model that has not learnt it."""

    name: str
    checkpoint: str  # of those that come with the worker
    whole: bool  # else the validation's subjects alone, of which no weight has learnt


COLLECTIONS: Final = (
    Collection("btcv_imis", "without_btcv", whole=True),
    Collection("msd_hippocampus", "default", whole=False),
)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that curate wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the curves")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for collection in COLLECTIONS:
        began = time.monotonic()
        parent = Path(str(resources.files("mlworker.recipes"))) / (
            f"{collection.checkpoint}.safetensors"
        )
        samples = samples_of(collection, arguments.data)
        points = simulate(parent, samples, plan=PLAN, progress=say)
        about = {"collection": collection.name, **about_parent(parent)}
        write_curves(arguments.out / collection.name, points, plan=PLAN, about=about)
        images, subjects = ({getattr(s, name) for s in samples} for name in ("image", "subject"))
        print(f"\n{collection.name}, {collection.checkpoint}: {len(samples)} masks on", end=" ")
        print(f"{len(images)} slices of {len(subjects)} subjects,", end=" ")
        print(f"{PLAN.seeds} seeds, {time.monotonic() - began:.0f} s\n\n{in_words(points)}")
        sys.stdout.flush()


def samples_of(collection: Collection, data: Path) -> Sequence[Sample]:
    """Its masks."""
    listed = (
        read_samples(data / SAMPLES_CSV)
        if collection.whole
        else read_label2image(data / "label2image_val.json", root=data)
    )
    return [sample for sample in listed if sample.collection == collection.name]


def say(point: Point) -> None:
    """How far it has come."""
    print(f"seed {point.seed}, {point.strategy}, round {point.round}", file=sys.stderr)


if __name__ == "__main__":
    main()
