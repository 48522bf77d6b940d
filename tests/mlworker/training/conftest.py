"""Small drawn data sets in the form that curate writes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlworker.training.curate import COLUMNS

SIDE = 96


def draw(folder: Path, name: str, *, seed: int, colour: bool = False) -> dict[str, str]:
    """One image of two discs, its label map, and their line in the list."""
    by = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for value, (cx, cy) in enumerate(((30, 30), (62, 60)), start=1):
        labels[(x - cx - seed % 5) ** 2 + (y - cy) ** 2 < (12 + 2 * value) ** 2] = value
    grey = np.clip(60 + 60 * labels + by.normal(0, 8, labels.shape), 0, 255).astype(np.uint8)
    image = np.stack([grey, grey // 2, 255 - grey], axis=2) if colour else grey
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(labels).save(folder / f"{name}_labels.png")
    return {
        "set": "discs",
        "modality": "CT",
        "image": f"{name}.png",
        "mask": f"{name}_labels.png",
        "mask_encoding": "labels",
        "labels": "small|large",
        "group": f"subject-{name}",
        "split": "train",
    }


def write_pairs(folder: Path, rows: list[dict[str, str]]) -> Path:
    """The list that curate reads."""
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def pairs(tmp_path):
    """Six images of two discs, the last two for validation."""
    rows = [draw(tmp_path, f"i{n}", seed=n, colour=n % 2 == 1) for n in range(6)]
    for row in rows[4:]:
        row["split"] = "val"
    return write_pairs(tmp_path, rows)
