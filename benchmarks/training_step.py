"""What a training step costs, beside the same step written the published way.

    python -m benchmarks.training_step

A step is 2 images with 5 masks each, encoded, asked for and corrected eight times: 9 moves of the
optimiser, ViT-B with adapters, two threads. The published way is built from segment-anything's
modules and adapters as the paper draws them: every part's gradients switched on and off between the
moves, Adam over all parameters, losses and prompts as its code computes them.

Each way runs in a process of its own, so that its peak of resident memory is its own; they take
turns, step by step, so that a busy machine is busy for all of them. Figures are medians, ratios
those of pairs of neighbouring steps. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.vit_b import published_encoder
from mlworker.inference.geometry import Frame
from mlworker.model import sam_med2d
from mlworker.training.dataset import DrawnImage
from mlworker.training.settings import Settings
from mlworker.training.step import Part, Trainer

IMAGES: Final = 2
MASKS: Final = 5
CORRECTIONS: Final = 8
POINTS: Final = (1, 3, 5, 9)
SIZE: Final = 256
WAYS: Final = ("published", "float32", "bfloat16")

Step = Callable[[int], float]  # the number of the step -> its loss


def main() -> None:
    """Run all ways in turns, or, as a child, one of them when it is told to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve(arguments.child, threads=arguments.threads)
    else:
        compare(arguments.ways, steps=arguments.steps, threads=arguments.threads)


def compare(ways: list[str], *, steps: int, threads: int) -> None:
    """Let the ways take turns, and print what they took."""
    children = {way: start(way, threads=threads) for way in ways}
    took: dict[str, list[float]] = {way: [] for way in ways}
    used: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(steps + 1):
        for way, child in children.items():
            wall, processor, _ = (float(value) for value in ask(child, str(number)).split())
            if number > 0:  # the first one warms up
                took[way].append(wall)
                used[way].append(processor)
    print(f"\n{steps} steps each, {threads} threads, torch {torch.__version__}\n")
    print("| way | s a step | times as fast | processor s | times as few | peak resident GB |")
    print("|---|---|---|---|---|---|")
    for way, child in children.items():
        peak = float(ask(child, "end"))
        child.wait()
        print(
            f"| {way} | {statistics.median(took[way]):.2f} | {_ratio(took, ways[0], way):.2f} "
            f"| {statistics.median(used[way]):.2f} | {_ratio(used, ways[0], way):.2f} "
            f"| {peak:.2f} |"
        )


def _ratio(figures: dict[str, list[float]], first: str, way: str) -> float:
    """The median over pairs of neighbouring steps."""
    return statistics.median(a / b for a, b in zip(figures[first], figures[way], strict=True))


def start(way: str, *, threads: int) -> subprocess.Popen[str]:
    """A child that waits for its turn."""
    command = [sys.executable, "-m", __spec__.name, "--child", way, "--threads", str(threads)]
    # Passive: who waits for a turn must not keep a core busy.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ask(child: subprocess.Popen[str], what: str) -> str:
    """Send a line and wait for one."""
    assert child.stdin is not None
    assert child.stdout is not None
    print(what, file=child.stdin, flush=True)
    answer = child.stdout.readline()
    assert answer, "the child has ended"
    return answer


def serve(way: str, *, threads: int) -> None:
    """The child: a step for each line, timed."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step: Step | None = None
    for line in sys.stdin:
        if line.strip() == "end":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, flush=True)
            return
        if step is None:
            step = published_way() if way == "published" else our_way(way)
        began, used = time.perf_counter(), time.process_time()
        loss = step(int(line))
        print(time.perf_counter() - began, time.process_time() - used, loss, flush=True)


def drawn_images() -> list[DrawnImage]:
    """Noise with ellipses."""
    by = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    drawn = []
    for _ in range(IMAGES):
        masks = []
        for _ in range(MASKS):
            (cx, cy), (rx, ry) = by.uniform(60, 196, 2), by.uniform(12, 50, 2)
            masks.append(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)
        image = by.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        drawn.append(DrawnImage(image, np.stack(masks)))
    return drawn


def our_way(precision: str) -> Step:
    """A step of `mlworker train`, by its default settings but for the precision."""
    settings = Settings.model_validate({"precision": precision})
    model = sam_med2d.build("vit_b")
    trainer = Trainer(model, settings=settings, frame=Frame(), device=torch.device("cpu"))
    drawn = drawn_images()

    def step(number: int) -> float:
        chances = [np.random.default_rng((number, image)) for image in range(IMAGES)]
        part = Part(images=drawn, chances=chances)
        chance = np.random.default_rng(number)
        loss, _ = trainer.step([part], chance=chance, rate=settings.learning_rate)
        return loss

    return step


def published_way() -> Step:
    """The step of the published code, on CPU in float32."""
    encoder = published_encoder()
    prompt_encoder, mask_decoder = (
        sam_med2d.build_prompt_encoder("vit_b"),
        sam_med2d.build_mask_decoder(),
    )
    parts = nn.ModuleDict({"image": encoder, "prompt": prompt_encoder, "mask": mask_decoder})
    parts.train()
    optimiser = torch.optim.Adam(parts.parameters(), lr=1e-4)
    drawn = drawn_images()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    truth = torch.from_numpy(np.concatenate([image.masks for image in drawn])).float()[:, None]

    def step(number: int) -> float:
        by = np.random.default_rng(number)
        images = torch.stack(
            [((torch.from_numpy(s.image) - mean) / std).permute(2, 0, 1) for s in drawn]
        )
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad = "Adapter" in name
        embeddings = torch.cat([e.repeat(MASKS, 1, 1, 1) for e in encoder(images)])
        boxes = clicks = None
        if by.random() > 0.5:
            boxes = torch.stack([_box(mask[0]) for mask in truth])
        else:
            clicks = _clicks(torch.zeros_like(truth), truth, count=1, by=by)
        logits, low, iou = _ask(parts, embeddings, clicks, boxes, None, learning=True)
        loss = _loss(logits, truth, iou)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

        clicks = _clicks((torch.sigmoid(logits) > 0.5).float(), truth, count=_count(by), by=by)
        prior = torch.sigmoid(low)
        embeddings = embeddings.detach().clone()
        for name, parameter in parts.named_parameters():
            parameter.requires_grad = not name.startswith("image")
        alone = by.integers(1, CORRECTIONS - 1)
        for correction in range(CORRECTIONS):
            if correction in (alone, CORRECTIONS - 1):
                clicks = None
            logits, low, iou = _ask(parts, embeddings, clicks, None, prior, learning=False)
            loss = _loss(logits, truth, iou)
            loss.backward(retain_graph=True)
            optimiser.step()
            optimiser.zero_grad()
            if correction != CORRECTIONS - 1:
                answer = (torch.sigmoid(logits.clone()) > 0.5).float()
                clicks = _clicks(answer, truth, count=_count(by), by=by)
                prior = torch.sigmoid(low.clone())
        return loss.item()

    return step


def _ask(
    parts: Any,
    embeddings: Tensor,
    clicks: tuple[Tensor, Tensor] | None,
    boxes: Tensor | None,
    prior: Tensor | None,
    *,
    learning: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, 1, 256, 256) and (N, 1, 64, 64) of the best candidate, and its IoU (N, 1)."""
    prompt_encoder, decoder = parts["prompt"], parts["mask"]
    with torch.set_grad_enabled(learning):
        sparse, dense = prompt_encoder(points=clicks, boxes=boxes, masks=prior)
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight], dim=0)
    tokens = torch.cat((output.unsqueeze(0).expand(sparse.size(0), -1, -1), sparse), dim=1)
    source = embeddings + dense
    positions = torch.repeat_interleave(prompt_encoder.get_dense_pe(), tokens.shape[0], dim=0)
    batch, channels, rows, columns = source.shape
    attended, source = decoder.transformer(source, positions, tokens)
    source = source.transpose(1, 2).view(batch, channels, rows, columns)
    upscaled = decoder.output_upscaling(source)
    weights = torch.stack(
        [decoder.output_hypernetworks_mlps[i](attended[:, 1 + i, :]) for i in range(4)], dim=1
    )
    batch, channels, rows, columns = upscaled.shape
    low = (weights @ upscaled.view(batch, channels, rows * columns)).view(batch, -1, rows, columns)
    ious = decoder.iou_prediction_head(attended[:, 0, :])
    best, chosen = torch.max(ious[:, 1:], dim=1)
    low = torch.stack([low[i : i + 1, 1 + index] for i, index in enumerate(chosen)], 0)
    logits = functional.interpolate(low, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return logits, low, best.unsqueeze(1)


def _loss(logits: Tensor, truth: Tensor, iou: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    inside, outside = torch.sum(truth), truth.numel() - torch.sum(truth)
    of_inside = -0.25 * truth * (1 - p) ** 2.0 * torch.log(p + 1e-12)
    of_outside = -0.75 * (1 - truth) * p**2.0 * torch.log(1 - p + 1e-12)
    focal = (torch.sum(of_inside) + torch.sum(of_outside)) / (inside + outside + 1e-12)
    p = torch.sigmoid(logits)
    overlap = torch.sum(p * truth)
    dice = 1 - (2.0 * overlap + 1.0) / (torch.sum(p) + torch.sum(truth) + 1.0)
    p = torch.sigmoid(logits)
    overlap = torch.sum(p * truth)
    soft = (overlap + 1e-7) / (torch.sum(p) + torch.sum(truth) - overlap + 1e-7)
    return 20.0 * focal + dice + torch.mean((soft - iou) ** 2)


def _count(by: np.random.Generator) -> int:
    return int(by.choice(POINTS))


def _box(mask: Tensor) -> Tensor:
    rows, columns = np.nonzero(mask.numpy())
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return torch.tensor([corners], dtype=torch.float32)


def _clicks(
    answer: Tensor, truth: Tensor, *, count: int, by: np.random.Generator
) -> tuple[Tensor, Tensor]:
    points, labels = [], []
    for one, true in zip(answer[:, 0].numpy(), truth[:, 0].numpy(), strict=True):
        wrong = np.argwhere(one != true)
        drawn = wrong[by.integers(0, len(wrong), size=count)]
        points.append([(column, row) for row, column in drawn])
        labels.append([int(true[row, column]) for row, column in drawn])
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels)


if __name__ == "__main__":
    main()
