"""The reference's weights, images and prompts, made from formulas: nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlworker.contract.messages import Box, Point
from mlworker.inference.geometry import Rgb

GOLDEN: Final = Path(__file__).parent / "golden"
SIZES: Final = {"a": (512, 512), "b": (181, 258)}  # rows, columns
CASES: Final = ("point1", "point3", "box", "box_point", "point3_mask", "mask")
MODES: Final = ("multi", "single")

Vectors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Prompts:
    """What one case asks, in slice pixels; the mask as (64, 64) probabilities."""

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask_prompt: Tensor | None = None


def portable() -> Vectors:
    """The vectors that travel with the repository."""
    with np.load(GOLDEN / "portable.npz") as vectors:
        return dict(vectors)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The published model's keys and their shapes."""
    listed = json.loads((GOLDEN / "state_dict_vit_b_256_adapter.json").read_text())
    return {key: tuple(shape) for key, shape in listed}


def weights(
    shapes: Iterable[tuple[str, tuple[int, ...]]], *, prefix: str = ""
) -> dict[str, Tensor]:
    """Each tensor is a function of its key alone."""
    return {key: _weight(prefix + key, shape) for key, shape in shapes}


def image(name: str) -> Rgb:
    """Image ``a`` or ``b``."""
    h, w = SIZES[name]
    y, x = np.mgrid[:h, :w].astype(float)
    ellipse = ((x - 0.45 * w) / (0.2 * w)) ** 2 + ((y - 0.5 * h) / (0.25 * h)) ** 2 < 1
    v = 90 + 60 * np.sin(2 * np.pi * (3 * x / w + y / h)) + 50 * ellipse
    v += 30 * np.cos(4 * np.pi * (x**2 + y**2) / (w * h))
    grey = np.floor(np.clip(v, 0, 255)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def prompts(vectors: Vectors, name: str, case: str) -> Prompts:
    """The prompts of one case on one image."""
    points = tuple(
        Point(x=x, y=y, positive=bool(label))
        for (x, y), label in zip(vectors[f"{name}/points"], vectors[f"{name}/labels"], strict=True)
    )
    x0, y0, x1, y1 = vectors[f"{name}/box"]
    box = Box(x0=x0, y0=y0, x1=x1, y1=y1)
    # Probabilities, as in training.
    last = torch.from_numpy(vectors[f"{name}/point1/multi/low_res_logits"][0])
    return {
        "point1": Prompts(points=points[:1]),
        "point3": Prompts(points=points),
        "box": Prompts(box=box),
        "box_point": Prompts(points=points, box=box),
        "point3_mask": Prompts(points=points, mask_prompt=torch.sigmoid(last)),
        "mask": Prompts(mask_prompt=torch.sigmoid(last)),
    }[case]


def mask(vectors: Vectors, key: str) -> npt.NDArray[np.bool_]:
    """The binary mask under ``key``, (rows, columns)."""
    shape = vectors[f"{key}/mask_shape"][-2:]
    bits = np.unpackbits(vectors[f"{key}/mask"], count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def all_cases(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Image, case, mode."""
    return [(name, case, mode) for name in names for case in CASES for mode in MODES]


def _weight(key: str, shape: tuple[int, ...]) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    w = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    if key.endswith("positional_encoding_gaussian_matrix"):
        pass
    elif "pos_embed" in key or "rel_pos" in key:
        w *= np.float32(0.02)
    elif len(shape) == 1 and key.endswith("weight"):
        w = 1 + np.float32(0.1) * w
    elif len(shape) == 1:
        w *= np.float32(0.1)
    else:
        w /= np.sqrt(np.float32(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(w))
