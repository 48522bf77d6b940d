"""What many boxes on one slice cost, one by one and in one pass of the decoder.

    python -P benchmarks/decoder.py

Both ways end in a mask at slice size. ViT-B's prompt encoder and decoder, and the default model's
kind, which draws its prompts; the weights are functions of their names, so nothing is downloaded.
One thread, as in the process that answers clicks, and its processor time, which leaves out what
neighbours take. Both ways take turns: a ratio is the median of the ratios within one turn. Prints a
table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import nn

from mlworker.contract.messages import Box, Variant
from mlworker.inference.predictor import Predictor, Prompt
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly, random_weight

OBJECTS: Final = (1, 8, 32)
VARIANTS: Final[tuple[Variant, ...]] = ("vit_b", "hybrid_t")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--side", type=int, default=256, help="of the slice, in pixels")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    print(f"{arguments.side} × {arguments.side} pixels, {arguments.turns} turns:\n")
    print("| decoder of | boxes | one by one, prompts/s | one pass, prompts/s | ratio |")
    print("|---|---|---|---|---|")
    for variant in VARIANTS:
        for objects in OBJECTS:
            print_row(variant, objects=objects, side=arguments.side, turns=arguments.turns)


def print_row(variant: Variant, *, objects: int, side: int, turns: int) -> None:
    """Measure one number of objects."""
    predictor = untrained_predictor(variant)
    by = np.random.default_rng(objects)
    embedding = torch.from_numpy(by.standard_normal((256, 16, 16), dtype=np.float32))
    prompts = [Prompt(box=random_box(by, side=side)) for _ in range(objects)]

    def one_by_one() -> None:
        for prompt in prompts:
            predictor.predict(embedding, height=side, width=side, box=prompt.box)

    def one_pass() -> None:
        predictor.predict_many(embedding, height=side, width=side, prompts=prompts)

    one_by_one()  # some things are slow only the first time
    one_pass()
    times = [(seconds(one_by_one), seconds(one_pass)) for _ in range(turns)]
    alone, together = (statistics.median(each) for each in zip(*times, strict=True))
    ratio = statistics.median(one / other for one, other in times)
    rates = f"{objects / alone:.0f} | {objects / together:.0f}"
    print(f"| {variant} | {objects} | {rates} | {ratio:.2f} |", flush=True)


def untrained_predictor(variant: Variant) -> Predictor:
    """Prompt encoder and mask decoder with random weights, the same on every machine."""

    def filled(part: nn.Module) -> nn.Module:
        state = part.state_dict()
        load_strictly(part, {k: random_weight(k, v, seed=0) for k, v in state.items()})
        return part

    return Predictor(
        filled(sam_med2d.build_prompt_encoder(variant)), filled(sam_med2d.build_mask_decoder())
    )


def random_box(by: np.random.Generator, *, side: int) -> Box:
    """Anywhere in the slice, an eighth to a half of its side long."""
    width, height = by.uniform(side / 8, side / 2, 2)
    x, y = by.uniform(0, side - width), by.uniform(0, side - height)
    return Box(x0=x, y0=y, x1=x + width, y1=y + height)


def seconds(call: Callable[[], None]) -> float:
    """Processor time."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
