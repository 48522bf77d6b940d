"""Which prompts a mask is asked for with, in slice pixels: from a file, or sampled with a seed.

Two forms of file are read. Ours, which the evaluation also writes:

    {"format": "delineate-prompts", "version": 1, "masks": {"masks/a_liver_000.png": {
        "boxes": [[x0, y0, x1, y1]], "jittered_boxes": [[x0, y0, x1, y1]],
        "point_coords": [[x, y], …], "point_labels": [1, …]}}}

Coordinates are the image's own pixels; each part of an entry may be left out. And SAM-Med2D's
``256_prompt.json``: the entries alone, by the mask's bare file name, in pixels of the model's
square, whose size is in the file's name. There an image smaller than the square on both sides was
padded to it, and any other one stretched; both are undone here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from mlworker.contract.messages import Box, Point
from mlworker.model.sam_med2d import IMAGE_SIZE
from mlworker.training import simulate
from mlworker.training.samples import DataError, Sample, json_object

Mask = npt.NDArray[np.bool_]

JITTER: Final = 0.1  # of the box's own side, by which each side of it is moved at most
FORMAT: Final = "delineate-prompts"
_ROUNDING: Final = 1e-3  # px that there and back between two frames may cost


class PromptFileError(DataError):
    """A file of prompts that cannot be read."""


class PromptMissing(DataError):
    """A file of prompts says nothing of this mask, or not what the protocol asks with."""


class PromptOutside(DataError):
    """A prompt beyond the image: nobody can click there."""


class EmptyBox(DataError):
    """A box without area."""


@dataclass(frozen=True)
class Prompts:
    """What is given for one mask, in slice pixels; what is not is None or empty."""

    box: Box | None = None
    jittered_box: Box | None = None
    points: tuple[Point, ...] = ()


def sample_prompts(mask: Mask, *, by: np.random.Generator) -> Prompts:
    """The mask's box, exact and jittered, and a point anywhere inside; it must not be empty."""
    points, _ = simulate.first_point(mask, by=by)
    return Prompts(
        box=_box(simulate.box_of(mask)),
        jittered_box=_box(simulate.jittered_box(mask, share=JITTER, by=by)),
        points=(Point(x=float(points[0, 0]), y=float(points[0, 1]), positive=True),),
    )


def randomness_of(sample: Sample, *, seed: int) -> np.random.Generator:
    """A mask's own: neither the order of the masks nor their number changes its prompts."""
    name = f"{seed}/{sample.image.name}/{sample.mask.name}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8], "little"))


def error_point(predicted: Mask, truth: Mask, *, by: np.random.Generator) -> Point | None:
    """A point anywhere in what is wrong, or None where nothing is."""
    points, labels = simulate.corrections(predicted, truth, count=1, by=by)
    if labels[0] == simulate.IGNORED:
        return None
    return Point(x=float(points[0, 0]), y=float(points[0, 1]), positive=bool(labels[0]))


def worst_point(predicted: Mask, truth: Mask) -> Point | None:
    """The innermost pixel of the largest region that is wrong, or None where nothing is.

    Regions are connected by edges and corners, and are wrong in one way: missed, or too much.
    Innermost is farthest from where the region, or the image, ends; of equals the first.
    """
    wrong = predicted != truth
    rows, columns = np.flatnonzero(wrong.any(1)), np.flatnonzero(wrong.any(0))
    if rows.size == 0:
        return None
    # Most of a large image is right; only the part that is not is labelled.
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    area, corner, positive = 0, (0, 0), True
    largest = wrong[part]
    for missed in (True, False):
        region = (wrong[part] & (truth[part] == missed)).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(region)
        if count < 2:
            continue
        label = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        left, top, width, height, pixels = (int(value) for value in stats[label])
        if pixels > area:
            area, corner, positive = pixels, (left + int(columns[0]), top + int(rows[0])), missed
            largest = labels[top : top + height, left : left + width] == label
    padded = np.pad(largest.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return Point(x=float(corner[0] + x), y=float(corner[1] + y), positive=positive)


class PromptFile:
    """The prompts of many masks."""

    def __init__(self, path: Path, *, root: Path) -> None:
        """Raises PromptFileError. Masks are named relative to ``root``, or by their bare name."""
        content = json_object(path, refusal=PromptFileError)
        ours = content.get("format") == FORMAT
        if ours and content.get("version") != 1:
            raise PromptFileError(f"{path} is of a version that is not known")
        entries = content.get("masks") if ours else content
        if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
            raise PromptFileError(f"{path} does not map masks to their prompts")
        self._name = path.name
        self._root = root
        self._entries: Mapping[str, Mapping[str, Any]] = entries
        size = re.match(r"(\d+)_prompt", path.name)
        self._square = None if ours else int(size[1]) if size else IMAGE_SIZE

    def of(self, sample: Sample, *, height: int, width: int) -> Prompts:
        """Raises PromptMissing, PromptOutside, EmptyBox, PromptFileError."""
        keys = (mask_name(sample, root=self._root), sample.mask.name)
        entry = next((self._entries[key] for key in keys if key in self._entries), None)
        if entry is None:
            raise PromptMissing(f"{self._name} says nothing of {keys[0]}")
        where = f"{self._name}: {keys[0]}"
        numbers = {
            key: _numbers(entry.get(key, ()), of=of, where=where)
            for key, of in (("boxes", 4), ("jittered_boxes", 4), ("point_coords", 2))
        }
        labels = _numbers(entry.get("point_labels", ()), of=1, where=where)[:, 0]
        points = self._in_slice(numbers["point_coords"], height=height, width=width)
        if len(labels) != len(points) or not np.isin(labels, (0, 1)).all():
            raise PromptFileError(f"{where} needs a label, 0 or 1, for each point")
        if ((points < 0) | (points >= [width, height])).any():
            raise PromptOutside(f"{where} has a point outside the image")
        boxes = {}
        for key in ("boxes", "jittered_boxes"):
            corners = self._in_slice(numbers[key].reshape(-1, 2), height=height, width=width)
            if ((corners < -_ROUNDING) | (corners > [width + _ROUNDING, height + _ROUNDING])).any():
                raise PromptOutside(f"{where} has a box that reaches outside the image")
            boxes[key] = _box(corners[:2].reshape(-1)) if corners.size else None
            if corners.size and not (corners[1] > corners[0]).all():
                raise EmptyBox(f"{where} has a box without area")
        return Prompts(
            box=boxes["boxes"],
            jittered_box=boxes["jittered_boxes"],
            points=tuple(
                Point(x=float(x), y=float(y), positive=bool(label))
                for (x, y), label in zip(points, labels, strict=True)
            ),
        )

    def _in_slice(
        self, xy: npt.NDArray[np.float64], *, height: int, width: int
    ) -> npt.NDArray[np.float64]:
        if self._square is None:
            return xy
        if height < self._square and width < self._square:
            return xy - [(self._square - width) // 2, (self._square - height) // 2]
        return xy * [width / self._square, height / self._square]


def write_prompts(path: Path, prompts: Mapping[str, Prompts]) -> None:
    """Write a file in our form, of prompts by the name of their mask."""
    masks = {
        name: {
            "boxes": [_corners(of.box)] if of.box else [],
            "jittered_boxes": [_corners(of.jittered_box)] if of.jittered_box else [],
            "point_coords": [[point.x, point.y] for point in of.points],
            "point_labels": [int(point.positive) for point in of.points],
        }
        for name, of in prompts.items()
    }
    content = {"format": FORMAT, "version": 1, "masks": masks}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def mask_name(sample: Sample, *, root: Path | None) -> str:
    """How files name a mask: by its path below ``root``, where it lies there."""
    if root is not None and sample.mask.is_relative_to(root):
        return sample.mask.relative_to(root).as_posix()
    return sample.mask.as_posix()


def _box(corners: npt.NDArray[Any]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in corners)
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)


def _corners(box: Box) -> list[float]:
    return [box.x0, box.y0, box.x1, box.y1]


def _numbers(value: Any, *, of: int, where: str) -> npt.NDArray[np.float64]:
    """Lists of numbers, however deep, -> (n, of): the published file nests them by batch size."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PromptFileError(f"{where} has prompts that are not numbers") from error
    if numbers.size % of or not np.isfinite(numbers).all():
        raise PromptFileError(f"{where} has prompts that are not {of} finite numbers each")
    return numbers.reshape(-1, of)
