"""Scenes: augmented images with a few of their masks, drawn for training from scratch.

Collections are drawn by the square root of their size, so that six thousand slices of one organ do
not crowd out forty of another. Some scenes get synthetic structures on top, some have nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from mlworker.inference.geometry import Rgb
from mlworker.training.augment import Augmentation, augment
from mlworker.training.samples import Sample, by_image
from mlworker.training.shapes import add_shapes

LONGEST_SIDE: Final = 384  # of what is kept in memory: room for a zoom of 1.5 without blur
COUNTED_IMAGES: Final = 150  # of one collection; more of the same teach little more
LEAST_PX: Final = 40  # of a mask that is still to be seen after augmentation
UNLABELLED: Final = 255

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """An image (size, size, 3), masks (size, size) of 0 and 1 and, where known, what is where."""

    image: Rgb
    masks: list[Mask]
    classes: Mask | None  # per pixel the label's number; UNLABELLED where there is none
    collection: str


@dataclass
class _Picture:
    samples: list[Sample]
    image: Rgb | None = None
    masks: dict[Path, Mask] = field(default_factory=dict)
    classes: Mask | None = None


class Library:
    """The training images, read once and kept small in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.labels = sorted({(sample.collection, sample.label) for sample in samples})
        self._number = {label: number for number, label in enumerate(self.labels)}
        self._collections: dict[str, list[_Picture]] = {}
        for group in by_image(samples).values():
            self._collections.setdefault(group[0].collection, []).append(_Picture(group))

    def labels_of(self, collection: str) -> list[int]:
        """The numbers of the labels that a collection's images are labelled with."""
        return [number for (name, _), number in self._number.items() if name == collection]

    def draw(
        self,
        *,
        size: int,
        masks: int,
        augmentation: Augmentation,
        with_shapes: float,
        only_shapes: float,
        by: np.random.Generator,
        shares: Mapping[str, float] = {},
    ) -> Scene:
        """A scene with ``masks`` masks, some of them more than once where there are fewer.

        ``shares`` say how many times as often as the others a collection is drawn from, or never.
        """
        for _ in range(50):
            scene = self._draw(
                size=size,
                augmentation=augmentation,
                with_shapes=with_shapes,
                only_shapes=only_shapes,
                most=masks,
                by=by,
                shares=shares,
            )
            if scene.masks:
                picked = [scene.masks[i % len(scene.masks)] for i in range(masks)]
                return Scene(scene.image, picked, scene.classes, scene.collection)
        raise AssertionError("fifty scenes without a mask")

    def _draw(
        self,
        *,
        size: int,
        augmentation: Augmentation,
        with_shapes: float,
        only_shapes: float,
        most: int,
        by: np.random.Generator,
        shares: Mapping[str, float],
    ) -> Scene:
        picture = self._picture(by, shares=shares)
        image = self._image(picture)
        chosen = [
            picture.samples[i]
            for i in by.permutation(len(picture.samples))[
                : most if len(picture.samples) > most else None
            ]
        ]
        masks = [self._mask(picture, sample) for sample in chosen]
        warped, cut = augment(
            image,
            [*masks, self._classes(picture)],
            size=size,
            ranges=augmentation,
            around=_centre(masks[0]),
            by=by,
        )
        *cut, classes = cut
        seen = [mask for mask in cut if mask.sum() >= LEAST_PX]
        kind = by.random()
        if kind >= with_shapes + only_shapes:
            return Scene(warped, seen, classes, picture.samples[0].collection)
        textures = [self._texture(size, by, shares=shares) for _ in range(3)]
        drawn, shapes = add_shapes(
            warped.copy(), textures=textures, count=int(by.integers(1, 7)), by=by
        )
        if kind < only_shapes:
            seen = []
        else:
            covered = np.any(shapes, axis=0) if shapes else np.zeros((size, size), bool)
            seen = [mask for mask in (mask * ~covered for mask in seen) if mask.sum() >= LEAST_PX]
        mixed = [*shapes, *seen]
        order = by.permutation(len(mixed))[:most]
        return Scene(drawn, [mixed[i].astype(np.uint8) for i in order], None, "shapes")

    def _picture(self, by: np.random.Generator, *, shares: Mapping[str, float]) -> _Picture:
        names = sorted(self._collections)
        weights = np.array(
            [
                min(len(self._collections[name]), COUNTED_IMAGES) ** 0.5 * shares.get(name, 1.0)
                for name in names
            ]
        )
        pictures = self._collections[names[by.choice(len(names), p=weights / weights.sum())]]
        return pictures[by.integers(len(pictures))]

    def _texture(self, size: int, by: np.random.Generator, *, shares: Mapping[str, float]) -> Rgb:
        texture, _ = augment(
            self._image(self._picture(by, shares=shares)),
            [],
            size=size,
            ranges=Augmentation(zoom=(1.0, 4.0), turn_degrees=180),
            by=by,
        )
        return texture

    def _image(self, picture: _Picture) -> Rgb:
        if picture.image is None:
            with Image.open(picture.samples[0].image) as opened:
                picture.image = _shrunk(np.asarray(opened.convert("RGB")), cv2.INTER_AREA)
        return picture.image

    def _mask(self, picture: _Picture, sample: Sample) -> Mask:
        if sample.mask not in picture.masks:
            with Image.open(sample.mask) as opened:
                mask = (np.asarray(opened.convert("L")) > 0).astype(np.uint8)
            picture.masks[sample.mask] = _shrunk(mask, cv2.INTER_NEAREST)
        return picture.masks[sample.mask]

    def _classes(self, picture: _Picture) -> Mask:
        if picture.classes is None:
            classes = np.full(self._image(picture).shape[:2], UNLABELLED, np.uint8)
            for sample in picture.samples:
                number = self._number[sample.collection, sample.label]
                classes[self._mask(picture, sample) > 0] = number
            picture.classes = classes
        return picture.classes


def _shrunk(array: npt.NDArray[np.uint8], interpolation: int) -> npt.NDArray[np.uint8]:
    share = LONGEST_SIDE / max(array.shape[:2])
    if share >= 1:
        return array
    height, width = (max(1, round(length * share)) for length in array.shape[:2])
    return np.asarray(cv2.resize(array, (width, height), interpolation=interpolation), np.uint8)


def _centre(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return 0.5, 0.5
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]
