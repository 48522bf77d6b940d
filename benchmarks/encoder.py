"""What encoding a slice costs, beside the same encoder as it was published.

    python -m benchmarks.encoder

Everything is measured in one process, in turns of changing order, because machines are noisy: a
ratio is the median of the ratios within one turn. What a product of large matrices reaches in the
same turns is the limit; torch's own, and oneDNN's with packed weights. On a machine that others use
most of, measure the time that this process computed (--cpu-time; with OMP_WAIT_POLICY=PASSIVE, or
its threads compute while they wait). Masks are compared on the published demo slices (--data), with
the box of each object, one point in it, and three. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import cpu_seconds, ratio, take_turns
from benchmarks.vit_b import (
    part,
    published_encoder,
    random_weights,
    served_encoder,
    served_predictor,
)
from mlworker.contract.masks import dice
from mlworker.contract.messages import Box, Point
from mlworker.inference.encoder import Encoding, Precision, computes_bfloat16
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly
from mlworker.model.product import Linear
from mlworker.training import simulate

Mask = npt.NDArray[np.bool_]

BATCHES: Final = (1, 8)
MATRIX: Final = 2048  # rows and columns of the products that say what the machine can do
PUBLISHED: Final = "published"
BLOCKS: Final = "our blocks, as in training"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--cpu-time", action="store_true", help="not the clock on the wall")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sam-med2d-demo"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    if not computes_bfloat16():
        precisions = ("float32",)

    clock = time.perf_counter
    if arguments.cpu_time:
        clock = cpu_seconds
    weights = random_weights(sam_med2d.build())
    print_speed(weights, precisions, turns=arguments.turns, clock=clock)
    if arguments.data.is_dir():
        print_agreement(weights, precisions, data=arguments.data)
    else:
        print(f"\nMasks were not compared: {arguments.data} does not exist.")


def print_speed(
    weights: Mapping[str, Tensor],
    precisions: tuple[Precision, ...],
    *,
    turns: int,
    clock: Callable[[], float],
) -> None:
    """Images per second, and which part of what the machine can do that is."""
    encoders = {PUBLISHED: published_encoder(), BLOCKS: sam_med2d.build_image_encoder("vit_b")}
    for encoder in encoders.values():
        load_strictly(encoder, part(weights, "image_encoder."))
    work = {name: operations(encoder) for name, encoder in encoders.items()}
    encoders |= {f"packed, {each}": served_encoder(weights, each) for each in precisions}
    products = {
        name: product
        for precision in precisions
        for name, product in large_products(getattr(torch, precision)).items()
    }
    print(f"{torch.get_num_threads()} threads, {turns} turns; the published encoder needs", end=" ")
    print(f"{work[PUBLISHED] / 2e9:.1f} GMAC a slice, ours {work[BLOCKS] / 2e9:.1f}.")
    for batch in BATCHES:
        slices = torch.randn(batch, 3, 256, 256, generator=torch.Generator().manual_seed(batch))
        ways = {name: partial(encoder, slices) for name, encoder in encoders.items()}
        with torch.inference_mode():
            expected = encoders[PUBLISHED](slices)
            errors = {name: float((way() - expected).abs().max()) for name, way in ways.items()}
            times = take_turns({**ways, **products}, turns=turns, clock=clock)
        print(f"\n## Batch {batch}\n")
        print("| encoder | images/s | × published | GFLOP/s | of the machine's | error |")
        print("|---|---|---|---|---|---|")
        for name in ways:
            unit = "bfloat16" if name.endswith("bfloat16") else "float32"
            flops = batch * work.get(name, work[BLOCKS])
            reached = {
                product: ratio(times, faster=name, slower=product) * flops / (2 * MATRIX**3)
                for product in products
                if product.endswith(unit)
            }
            print(
                f"| {name} | {batch / statistics.median(times[name]):.2f} "
                f"| {ratio(times, faster=name, slower=PUBLISHED):.2f} "
                f"| {flops / statistics.median(times[name]) / 1e9:.0f} "
                f"| {min(reached.values()):.0%} | {errors[name]:.1e} |"
            )
        for name in products:
            rate = 2 * MATRIX**3 / statistics.median(times[name]) / 1e9
            print(f"| {name} | | | {rate:.0f} | | |")


def print_agreement(
    weights: Mapping[str, Tensor], precisions: tuple[Precision, ...], *, data: Path
) -> None:
    """How far masks depend on the encoder's precision, on the published demo's slices."""
    published = published_encoder()
    load_strictly(published, part(weights, "image_encoder."))
    predictor = served_predictor(weights)
    encodings = {PUBLISHED: Encoding(published.eval())} | {
        each: Encoding(served_encoder(weights, each)) for each in precisions
    }
    agreed: dict[str, list[float]] = {each: [] for each in precisions}
    for rgb, objects in demo(data):
        embeddings = {name: encoding.encode([rgb])[0] for name, encoding in encodings.items()}
        for points, box in (asked for truth in objects for asked in prompts(truth)):
            masks = {
                name: predictor.predict(
                    torch.from_numpy(embedding),
                    height=rgb.shape[0],
                    width=rgb.shape[1],
                    points=points,
                    box=box,
                ).mask
                for name, embedding in embeddings.items()
            }
            for each in precisions:
                agreed[each].append(dice(masks[each], masks[PUBLISHED]))
    print("\n## Masks against those of the published encoder\n")
    print("| precision | prompts | mean Dice | lowest |")
    print("|---|---|---|---|")
    for name, values in agreed.items():
        print(f"| {name} | {len(values)} | {statistics.mean(values):.4f} | {min(values):.4f} |")


def operations(encoder: nn.Module) -> int:
    """Floating point operations of one slice; a multiplication and its addition are two."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(torch.zeros(1, 3, 256, 256))
    return int(counter.get_total_flops())


def large_products(dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """What the machine can do: products of square matrices."""
    a, b = torch.randn(2, MATRIX, MATRIX).to(dtype)
    linear = Linear(MATRIX, MATRIX, bias=False)
    linear.pack(dtype)
    name = str(dtype).removeprefix("torch.")
    return {
        f"product of {MATRIX} × {MATRIX}, torch.mm, {name}": partial(torch.mm, a, b),
        f"product of {MATRIX} × {MATRIX}, oneDNN, {name}": partial(linear, a),
    }


def demo(data: Path) -> Iterator[tuple[npt.NDArray[np.uint8], list[Mask]]]:
    """The published demo's slices with the masks of their objects."""
    listed: dict[str, list[str]] = {}
    for mask, image in json.loads((data / "label2image_test.json").read_text()).items():
        listed.setdefault(Path(image).name, []).append(Path(mask).name)
    for image, masks in listed.items():
        rgb = np.asarray(Image.open(data / "images" / image).convert("RGB"))
        paths = (data / "masks" / name for name in masks)
        yield rgb, [np.asarray(Image.open(path).convert("L")) > 0 for path in paths]


def prompts(truth: Mask) -> Iterator[tuple[tuple[Point, ...], Box | None]]:
    """The object's box, one point in it, and three."""
    x0, y0, x1, y1 = simulate.box_of(truth).tolist()
    rows, columns = np.nonzero(truth)
    chosen = np.random.default_rng(0).choice(len(rows), size=3)
    points = tuple(Point(x=columns[i], y=rows[i], positive=True) for i in chosen)
    yield (), Box(x0=x0, y0=y0, x1=x1, y1=y1)
    yield points[:1], None
    yield points, None


if __name__ == "__main__":
    main()
