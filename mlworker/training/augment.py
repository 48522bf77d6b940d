"""Augmentation of an image with its masks, and the step from any size to the model's frame.

Everything geometric is one remap, so that a pixel is interpolated once; intensities change after
it. Images are (rows, columns, 3) uint8, masks (rows, columns) bool, all of one size; the results
have the model's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from mlworker.inference.geometry import Rgb

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """How far an image may be changed; every range is drawn from uniformly."""

    flip: float = 0.5  # probability per axis: models must not rely on which side is which
    turn_degrees: float = 30.0
    zoom: tuple[float, float] = (0.8, 2.0)  # above 1 a part of the image fills the frame
    stretch: float = 0.15  # of one axis against the other
    bend: float = 0.03  # of the frame: the largest displacement of a smooth random field
    gamma: float = 0.35  # log2 range
    contrast: float = 0.3
    brightness: float = 0.2
    tint: float = 0.1  # gain per colour channel, of colour images only
    invert: float = 0.1  # probability, of grey images only
    noise: float = 0.06  # largest standard deviation, of the full range
    blur_px: float = 1.2


NONE: Final = Augmentation(
    flip=0,
    turn_degrees=0,
    zoom=(1, 1),
    stretch=0,
    bend=0,
    gamma=0,
    contrast=0,
    brightness=0,
    tint=0,
    invert=0,
    noise=0,
    blur_px=0,
)


def augment(
    image: Rgb,
    masks: Sequence[npt.NDArray[np.uint8]],
    *,
    size: int,
    ranges: Augmentation,
    by: np.random.Generator,
    around: tuple[float, float] | None = None,
) -> tuple[Rgb, list[npt.NDArray[np.uint8]]]:
    """The image and its masks (values kept, nearest pixel) at ``size`` x ``size``.

    ``around`` (x, y in shares of the image) is what a zoom should keep in view.
    """
    columns, rows = _sources(image.shape[:2], size=size, ranges=ranges, around=around, by=by)
    shrunk = max(image.shape[:2]) / size
    if shrunk > 1.5:  # what lies between the sampled pixels must count too
        image = cv2.blur(image, (round(shrunk), round(shrunk)))  # type: ignore[assignment]
    picture = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    cut = [
        cv2.remap(mask, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        for mask in masks
    ]
    return change_intensities(picture, ranges=ranges, by=by), cut  # type: ignore[arg-type,return-value]


def _sources(
    shape: tuple[int, int],
    *,
    size: int,
    ranges: Augmentation,
    around: tuple[float, float] | None,
    by: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Where each of the frame's pixels comes from: columns and rows of the image."""
    height, width = shape
    y, x = np.mgrid[:size, :size].astype(np.float32)
    # Shares of the frame, with pixels' centres at (i + 0.5) / size, seen from the middle.
    u, v = (x + 0.5) / size - 0.5, (y + 0.5) / size - 0.5
    if ranges.bend:
        for field in (u, v):
            rough = by.uniform(-ranges.bend, ranges.bend, (6, 6)).astype(np.float32)
            field += cv2.resize(rough, (size, size), interpolation=cv2.INTER_CUBIC)
    angle = np.deg2rad(by.uniform(-ranges.turn_degrees, ranges.turn_degrees))
    low, high = np.log(ranges.zoom)
    zoom = np.exp(by.uniform(low, high))
    stretch = np.exp(by.uniform(-ranges.stretch, ranges.stretch))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    u, v = (cos * u - sin * v) * stretch, (sin * u + cos * v) / stretch
    if by.random() < ranges.flip:
        u = -u
    if by.random() < ranges.flip:
        v = -v
    shift_u, shift_v = _shift(zoom, around=around, by=by)
    return (
        ((u + 0.5 + shift_u) * width - 0.5).astype(np.float32),
        ((v + 0.5 + shift_v) * height - 0.5).astype(np.float32),
    )


def _shift(
    zoom: float, *, around: tuple[float, float] | None, by: np.random.Generator
) -> tuple[float, float]:
    """Of the view's middle, so that it stays in the image and near what it is to keep."""
    if zoom <= 1:
        slack = (1 / zoom - 1) / 2
        return by.uniform(-slack, slack), by.uniform(-slack, slack)
    slack = (1 - 1 / zoom) / 2
    if around is None:
        return by.uniform(-slack, slack), by.uniform(-slack, slack)
    spread = 0.3 / zoom
    u, v = (
        float(np.clip(each - 0.5 + by.uniform(-spread, spread), -slack, slack)) for each in around
    )
    return u, v


def change_intensities(image: Rgb, *, ranges: Augmentation, by: np.random.Generator) -> Rgb:
    """Gamma, contrast, brightness, tint, inversion, blur and noise."""
    values: npt.NDArray[Any] = image.astype(np.float32) / 255
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    if grey:
        values = values[..., :1]
    if ranges.gamma:
        values = values ** np.float32(2 ** by.uniform(-2 * ranges.gamma, 2 * ranges.gamma))
    gain = 1 + by.uniform(-ranges.contrast, ranges.contrast)
    values = (values - 0.5) * np.float32(gain) + np.float32(
        0.5 + by.uniform(-ranges.brightness, ranges.brightness) / 2
    )
    if not grey and ranges.tint:
        values = values * by.uniform(1 - ranges.tint, 1 + ranges.tint, 3).astype(np.float32)
    if grey and by.random() < ranges.invert:
        values = 1 - values
    if ranges.blur_px and by.random() < 0.3:
        blurred = cv2.GaussianBlur(values, (0, 0), by.uniform(0.3, ranges.blur_px))
        values = np.asarray(blurred, np.float32).reshape(values.shape)
    if ranges.noise and by.random() < 0.5:
        deviation = np.float32(by.uniform(0, ranges.noise))
        values = values + deviation * by.standard_normal(values.shape, dtype=np.float32)
    bytes_ = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.repeat(bytes_, 3, axis=2) if grey else bytes_
