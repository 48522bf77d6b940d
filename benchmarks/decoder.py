"""What many boxes on one slice cost, one by one and in one pass of the decoder.

    python -m benchmarks.decoder

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
from typing import Final

import numpy as np
import torch

from benchmarks.turns import ratio, take_turns
from benchmarks.vit_b import random_weights
from mlworker.contract.messages import Box, Variant
from mlworker.inference.predictor import Predictor, Prompt
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly

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

    ways = {"one by one": one_by_one, "one pass": one_pass}
    times = take_turns(ways, turns=turns, clock=time.process_time)
    rates = " | ".join(f"{objects / statistics.median(times[way]):.0f}" for way in ways)
    gained = ratio(times, faster="one pass", slower="one by one")
    print(f"| {variant} | {objects} | {rates} | {gained:.2f} |", flush=True)


def untrained_predictor(variant: Variant) -> Predictor:
    """Prompt encoder and mask decoder with random weights, the same on every machine."""

    prompt_encoder, mask_decoder = (
        sam_med2d.build_prompt_encoder(variant),
        sam_med2d.build_mask_decoder(),
    )
    for module in (prompt_encoder, mask_decoder):
        load_strictly(module, random_weights(module))
    return Predictor(prompt_encoder, mask_decoder)


def random_box(by: np.random.Generator, *, side: int) -> Box:
    """Anywhere in the slice, an eighth to a half of its side long."""
    width, height = by.uniform(side / 8, side / 2, 2)
    x, y = by.uniform(0, side - width), by.uniform(0, side - height)
    return Box(x0=x, y0=y, x1=x + width, y1=y + height)


if __name__ == "__main__":
    main()
