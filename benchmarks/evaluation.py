"""What evaluating a mask costs, beside encoding its image again for every mask as published.

    python -m benchmarks.evaluation

ViT-B with adapters, asked with the box of each mask, on images with five and more masks: the
published demo's (--data), or drawn ones. The published way reads the image, encodes it with the
published encoder and decodes one prompt, for each mask, and measures Dice and IoU. Ours is
`mlworker evaluate`'s own function, with all its measures. Between them stands the published way
with our encoder, so that it can be seen what the encoder gives and what encoding once does.

Everything is measured in one process, in turns of changing order, because machines are noisy: a
ratio is the median of the ratios within one turn; on a busy one --cpu-time says what it computed,
as if all threads had always done so at once. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from benchmarks.turns import cpu_seconds, ratio, take_turns
from benchmarks.vit_b import (
    part,
    published_encoder,
    random_weights,
    served_encoder,
    served_predictor,
)
from mlworker.contract.masks import dice
from mlworker.contract.messages import Box
from mlworker.inference.encoder import Encoding
from mlworker.inference.predictor import Prompt
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly
from mlworker.training import simulate
from mlworker.training.asking import Model
from mlworker.training.evaluate import Plan, evaluate
from mlworker.training.metrics import iou_of
from mlworker.training.pictures import read_image, read_mask
from mlworker.training.samples import Sample, by_image, read_image2label, read_label2image

LEAST: Final = 5  # masks of an image
PUBLISHED: Final = "published: encoded again for every mask"
AGAIN: Final = "our encoder, again for every mask"
OURS: Final = "mlworker evaluate, encoded once"
BOX: Final = Plan(protocols=("box",))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--cpu-time", action="store_true", help="not the clock on the wall")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sam-med2d-demo"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        samples = demo(arguments.data) if arguments.data.is_dir() else drawn(Path(folder))
        clock = cpu_seconds if arguments.cpu_time else time.perf_counter
        measure(samples, turns=arguments.turns, precision=arguments.precision, clock=clock)


def measure(
    samples: Sequence[Sample], *, turns: int, precision: str, clock: Callable[[], float]
) -> None:
    """Print pairs a second, of each way."""
    weights = random_weights(sam_med2d.build())
    plain = published_encoder()
    load_strictly(plain, part(weights, "image_encoder."))
    predictor = served_predictor(weights)
    ours = served_encoder(weights, precision)  # type: ignore[arg-type]
    published, served = (
        Model(name, Encoding(encoder), predictor) for name, encoder in (("", plain), ("", ours))
    )
    ways: dict[str, Callable[[], object]] = {
        PUBLISHED: partial(one_by_one, published, samples),
        AGAIN: partial(one_by_one, served, samples),
        OURS: partial(evaluate, served, samples, plan=BOX),
    }
    times = take_turns(ways, turns=turns, clock=clock)
    images = len(by_image(samples))
    print(f"{len(samples)} masks of {images} images, {torch.get_num_threads()} threads, ", end="")
    print(f"precision {precision}, {turns} turns\n")
    print("| way | pairs/s | ratio |\n|---|---|---|")
    for name in ways:
        rate = len(samples) / statistics.median(times[name])
        print(f"| {name} | {rate:.2f} | {ratio(times, faster=name, slower=PUBLISHED):.2f} |")
    speed = evaluate(served, samples).speed[""]
    print(f"\nIn all protocols: {speed.images / speed.encode_s:.2f} images/s encoded, ", end="")
    print(f"{speed.prompts / speed.decode_s:.1f} prompts/s decoded, ", end="")
    print(f"{speed.masks / speed.total_s:.2f} masks/s all in all ({speed.prompts} prompts).")


def one_by_one(model: Model, samples: Sequence[Sample]) -> float:
    """The published test loop: everything anew for each mask; the mean of Dice and IoU."""
    figures = []
    for sample in samples:
        rgb = read_image(sample.image)
        truth = read_mask(sample.mask, image=rgb)
        (embedding,) = model.encoding.encode([rgb])
        x0, y0, x1, y1 = (float(side) for side in simulate.box_of(truth))
        (prediction,) = model.predictor.predict_many(
            torch.from_numpy(embedding),
            height=truth.shape[0],
            width=truth.shape[1],
            prompts=[Prompt(box=Box(x0=x0, y0=y0, x1=x1, y1=y1))],
        )
        overlap = dice(prediction.mask, truth)
        figures.append((overlap, iou_of(overlap)))
    return float(np.mean(figures))


def demo(data: Path) -> list[Sample]:
    """The published demo's masks, of images with enough of them."""
    # Its lists name files below a folder of another name.
    listed = [
        *read_label2image(data / "label2image_test.json", root=data.parent),
        *read_image2label(data / "image2label_train.json", root=data.parent),
    ]
    found = [
        Sample(data / "images" / each.image.name, data / "masks" / each.mask.name, each.label)
        for each in listed
    ]
    return [s for group in by_image(found).values() if len(group) >= LEAST for s in group]


def drawn(folder: Path) -> list[Sample]:
    """Two images of six discs each."""
    samples = []
    for number in range(2):
        y, x = np.mgrid[:400, :500]
        grey = np.full((400, 500), 50, np.uint8)
        for disc in range(6):
            mask = (x - 70 - 70 * disc) ** 2 + (y - 120 - 150 * number) ** 2 < (20 + 2 * disc) ** 2
            grey[mask] = 120 + 20 * disc
            path = folder / f"{number}_disc_{disc:03d}.png"
            Image.fromarray(mask.astype(np.uint8) * 255).save(path)
            samples.append(Sample(folder / f"{number}.png", path, "disc"))
        Image.fromarray(grey).save(folder / f"{number}.png")
    return samples


if __name__ == "__main__":
    main()
