"""A drawn training set in SAM-Med2D's form, and the small model to train on it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 96
# Nothing that costs time: one image of two masks, corrected once.
QUICK: dict[str, Any] = {"images": 1, "masks": 2, "corrections": 1, "keep_every_s": 0, "threads": 2}


def write_set(folder: Path, *, images: int, name: str = "image2label_train.json") -> Path:
    """Images of two discs each; the list."""
    folder.mkdir(exist_ok=True)
    listed: dict[str, list[str]] = {}
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(images):
        by = np.random.default_rng(number)
        grey = by.integers(20, 60, (SIDE, SIDE)).astype(np.uint8)
        masks = []
        for label in ("left", "right"):
            cx = by.uniform(22, 30) + (40 if label == "right" else 0)
            disc = (x - cx) ** 2 + (y - by.uniform(30, 60)) ** 2 < by.uniform(10, 16) ** 2
            grey[disc] += 120
            masks.append(f"image_{number}_{label}_000.png")
            Image.fromarray(disc.astype(np.uint8) * 255).save(folder / masks[-1])
        Image.fromarray(grey).save(folder / f"image_{number}.png")
        listed[f"image_{number}.png"] = masks
    path = folder / name
    path.write_text(json.dumps(listed))
    return path


def write_manifest(folder: Path, *, splits: list[str], subjects: list[str]) -> Path:
    """The same set as a manifest."""
    listed = json.loads(write_set(folder, images=len(splits)).read_text())
    items = [
        {
            "image": _file(folder, image),
            "masks": [{"file": _file(folder, mask), "label": mask.split("_")[2]} for mask in masks],
            "modality": "CT",
            "subject": subject,
            "split": split,
        }
        for (image, masks), split, subject in zip(listed.items(), splits, subjects, strict=True)
    ]
    path = folder / "manifest.json"
    path.write_text(json.dumps({"items": items}))
    return path


def write_settings(path: Path, **settings: Any) -> Path:
    """Quick settings, changed."""
    path.write_text(json.dumps(QUICK | settings))
    return path


def events(out: Path, *, named: str | None = None) -> list[dict[str, Any]]:
    """What a run told, in order."""
    lines = (out / "events.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return [each for each in told if named in (None, each["event"])]


def status(out: Path) -> dict[str, Any]:
    """What is true of a run now."""
    content: dict[str, Any] = json.loads((out / "status.json").read_text())
    return content


def _file(folder: Path, name: str) -> dict[str, str]:
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return {"key": name, "digest": digest}
