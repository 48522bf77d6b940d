"""A small test set on disk, and models that need no training to be judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mlworker.contract.messages import Box, Point
from mlworker.inference.cache import decoding_part, encoding_part
from mlworker.inference.encoder import Encoding
from mlworker.inference.geometry import Frame
from mlworker.inference.predictor import Prediction, Prompt
from mlworker.model.checkpoint import Checkpoint
from mlworker.training.asking import Model
from mlworker.training.samples import Sample, write_samples

HEIGHT, WIDTH = 72, 96
LABELS = ("small", "large", "tiny")
DISCS = ((24, 30, 9), (60, 40, 15), (80, 14, 6))  # x, y, radius


def disc(x: int, y: int, radius: float):
    """(rows, columns) bool."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def write_set(folder: Path, *, images: int = 2) -> Path:
    """So many images of three discs, of as many subjects; gives back the list."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    samples = []
    for number in range(images):
        grey = np.full((HEIGHT, WIDTH), 40, np.uint8)
        for label, (x, y, radius) in zip(LABELS, DISCS, strict=True):
            mask = disc(x + number, y, radius)
            grey[mask] = 200
            path = folder / f"masks/image{number}_{label}_000.png"
            Image.fromarray(mask.astype(np.uint8) * 255).save(path)
            samples.append(
                Sample(
                    image=folder / f"images/image{number}.png",
                    mask=path,
                    label=label,
                    modality="CT" if number % 2 == 0 else "MR",
                    collection="discs" if number % 2 == 0 else "others",
                    subject=f"subject-{number}",
                )
            )
        Image.fromarray(grey).save(folder / f"images/image{number}.png")
    write_samples(folder / "samples.csv", samples)
    return write_pairs(folder, samples)


def write_pairs(folder: Path, samples: list[Sample]) -> Path:
    """The list in SAM-Med2D's form."""
    path = folder / "label2image_test.json"
    pairs = {s.mask.relative_to(folder): s.image.relative_to(folder) for s in samples}
    path.write_text(json.dumps({m.as_posix(): i.as_posix() for m, i in pairs.items()}))
    return path


def untrained_model(checkpoint: Path) -> Model:
    """A real model, whose masks mean nothing."""
    opened = Checkpoint(checkpoint)
    return Model("untrained", encoding_part(opened), decoding_part(opened))


class Counting(torch.nn.Module):
    """An image encoder that knows how often it was asked, and gives the image's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.seen.append(tuple(batch.shape))
        return batch.mean(dim=(1, 2, 3))[:, None, None, None].expand(-1, 256, 16, 16)


class Annotator:
    """In the place of a predictor: fills the box, or paints a disc around every click."""

    def __init__(self, radius: float = 8) -> None:
        self.radius = radius
        self.asked: list[tuple[tuple[Point, ...], Box | None, bool]] = []

    def predict_many(
        self, embedding: Tensor, *, height: int, width: int, prompts: Sequence[Prompt]
    ) -> list[Prediction]:
        return [self._predicted(prompt, height=height, width=width) for prompt in prompts]

    def _predicted(self, prompt: Prompt, *, height: int, width: int) -> Prediction:
        points, box = prompt.points, prompt.box
        self.asked.append((points, box, prompt.mask_prompt is not None))
        rows, columns = np.ogrid[:height, :width]
        mask = np.zeros((height, width), bool)
        if box is not None:
            mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
        for point in points:
            near = (columns - point.x) ** 2 + (rows - point.y) ** 2 <= self.radius**2
            mask[near] = point.positive
        return Prediction(mask, 0.5, torch.zeros(64, 64))


def annotator(*, radius: float = 8, size: int = 256) -> tuple[Model, Counting, Annotator]:
    """A model whose answers are known beforehand, and its parts."""
    encoder, predictor = Counting(), Annotator(radius)
    frame = Frame(size=size)
    return Model("annotator", Encoding(encoder, frame), predictor), encoder, predictor
