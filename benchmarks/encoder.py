"""What encoding a slice costs, beside the same encoder as it was published.

    python -P benchmarks/encoder.py

The published encoder is built here, from segment-anything's own blocks with SAM-Med2D's adapters;
it pads windows and convolves as they do. The weights are functions of their names, so nothing is
downloaded, and both encoders have the same.

Everything is measured in one process, in turns of changing order, because machines are noisy: a
ratio is the median of the ratios within one turn. What a product of large matrices reaches in the
same turns is the limit; torch's own, and oneDNN's with packed weights. On a machine that others use
most of, measure the time that this process computed (--cpu-time; with OMP_WAIT_POLICY=PASSIVE, or
its threads compute while they wait). Masks are compared on the published demo slices (--data), with
the box of each object, one point in it, and three. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
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

from mlworker.contract.messages import Box, Point
from mlworker.inference.encoder import Encoding, Precision, computes_bfloat16, packed
from mlworker.inference.predictor import Predictor
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly
from mlworker.model.product import Linear
from mlworker.model.torchvision_operators import modeling

Mask = npt.NDArray[np.bool_]
Times = dict[str, list[float]]  # seconds of each turn, by what was timed

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
    weights = golden_weights(sam_med2d.build())
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
    dice: dict[str, list[float]] = {each: [] for each in precisions}
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
                dice[each].append(dice_of(masks[each], masks[PUBLISHED]))
    print("\n## Masks against those of the published encoder\n")
    print("| precision | prompts | mean Dice | lowest |")
    print("|---|---|---|---|")
    for name, values in dice.items():
        print(f"| {name} | {len(values)} | {statistics.mean(values):.4f} | {min(values):.4f} |")


def take_turns(
    ways: Mapping[str, Callable[[], object]], *, turns: int, clock: Callable[[], float]
) -> Times:
    """Seconds of each way in each turn, in which all come once, in changing order."""
    times: Times = {name: [] for name in ways}
    order = list(ways)
    by = random.Random(0)
    for way in ways.values():
        way()
    for _ in range(turns):
        by.shuffle(order)
        for name in order:
            start = clock()
            ways[name]()
            times[name].append(clock() - start)
    return times


def cpu_seconds() -> float:
    """What all threads computed, as if they had always done so at once."""
    return time.process_time() / torch.get_num_threads()


def ratio(times: Times, *, faster: str, slower: str) -> float:
    """The median of the ratios within a turn."""
    pairs = zip(times[slower], times[faster], strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


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


def published_encoder(
    *, image_size: int = 256, numbers: sam_med2d.Encoder | None = None, adapters: bool = True
) -> nn.Module:
    """segment-anything's image encoder with adapters as they were published."""
    numbers = numbers or sam_med2d.ENCODERS["vit_b"]
    encoder = modeling.ImageEncoderViT(
        img_size=image_size,
        patch_size=sam_med2d.PATCH,
        embed_dim=numbers.dim,
        depth=numbers.depth,
        num_heads=numbers.heads,
        mlp_ratio=4,
        out_chans=sam_med2d.CHANNELS,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sam_med2d.WINDOW,
        global_attn_indexes=numbers.global_blocks,
    )
    for block in encoder.blocks if adapters else ():
        block.__class__ = PublishedBlock
        block.Adapter = PublishedAdapter(numbers.dim)
    module: nn.Module = encoder.eval()
    return module


class PublishedBlock(modeling.image_encoder.Block):  # type: ignore[misc]
    """SAM's transformer block with an adapter beside its perceptron."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        shortcut = x
        x = self.norm1(x)
        if self.window_size > 0:
            size = x.shape[1:3]
            x, padded = modeling.image_encoder.window_partition(x, self.window_size)
        x = self.attn(x)
        if self.window_size > 0:
            x = modeling.image_encoder.window_unpartition(x, self.window_size, padded, size)
        x = shortcut + x
        normed = self.norm2(x)
        result: Tensor = x + self.mlp(normed) + self.Adapter(normed)
        return result


class PublishedAdapter(nn.Module):
    """SAM-Med2D's adapter (arXiv 2308.16184, section 3.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.channel = nn.Sequential(
            nn.Linear(dim, dim // 4, bias=False),
            nn.ReLU(),
            nn.Linear(dim // 4, dim, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) -> the same shape."""
        x = x.permute(0, 3, 1, 2)  # (B, dim, rows, columns)
        gate = self.channel(x.mean(dim=(2, 3)))
        x = x + self.spatial(x * gate[:, :, None, None])
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed


def served_encoder(weights: Mapping[str, Tensor], precision: Precision) -> nn.Module:
    """The encoder as the worker prepares it."""
    encoder = sam_med2d.build_image_encoder("vit_b")
    # Copied: what is packed is given up.
    load_strictly(encoder, {k: v.clone() for k, v in part(weights, "image_encoder.").items()})
    return packed(encoder, precision=precision)


def served_predictor(weights: Mapping[str, Tensor]) -> Predictor:
    """What decodes prompts; its precision is always float32."""
    prompt_encoder, mask_decoder = (
        sam_med2d.build_prompt_encoder("vit_b"),
        sam_med2d.build_mask_decoder(),
    )
    load_strictly(prompt_encoder, part(weights, "prompt_encoder."))
    load_strictly(mask_decoder, part(weights, "mask_decoder."))
    return Predictor(prompt_encoder, mask_decoder)


def part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part of the model."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def golden_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights by the rule of the reference vectors (tests/mlworker/golden): names are seeds."""
    return {key: golden_weight(key, value) for key, value in model.state_dict().items()}


def golden_weight(key: str, like: Tensor) -> Tensor:
    """One of them."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    w = np.random.Generator(np.random.PCG64(seed)).standard_normal(like.shape, dtype=np.float32)
    if "pos_embed" in key or "rel_pos" in key:
        w *= np.float32(0.02)
    elif like.dim() == 1:
        w = np.float32(0.1) * w + np.float32(key.endswith("weight"))
    elif not key.endswith("positional_encoding_gaussian_matrix"):
        w /= np.sqrt(np.float32(np.prod(like.shape[1:])))
    return torch.from_numpy(w)


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
    rows, columns = np.nonzero(truth)
    box = Box(x0=columns.min(), y0=rows.min(), x1=columns.max() + 1, y1=rows.max() + 1)
    chosen = np.random.default_rng(0).choice(len(rows), size=3)
    points = tuple(Point(x=columns[i], y=rows[i], positive=True) for i in chosen)
    yield (), box
    yield points[:1], None
    yield points, None


def dice_of(one: Mask, other: Mask) -> float:
    """Dice of two masks; two empty ones are equal."""
    size = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / size if size else 1.0


if __name__ == "__main__":
    main()
