"""Synthetic structures with real textures: what a border looks like, without an annotator.

Smooth closed outlines are filled with one image's texture and laid on another's, with soft or hard
borders and little or much contrast; later ones may hide parts of earlier ones, or lie inside them.
Their masks are exact, and they teach what no set of organs teaches: that any structure may be asked
for.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mlworker.inference.geometry import Rgb

LEAST_PX = 80  # of a structure that is still to be seen
Mask = npt.NDArray[np.uint8]


def add_shapes(
    canvas: Rgb, *, textures: list[Rgb], count: int, by: np.random.Generator
) -> tuple[Rgb, list[Mask]]:
    """The canvas (size, size, 3) with ``count`` structures laid on it, and what is seen of each."""
    size = canvas.shape[0]
    picture = canvas.astype(np.float32)
    masks: list[Mask] = []
    for _ in range(count):
        inside = masks[by.integers(len(masks))] if masks and by.random() < 0.3 else None
        mask = outline(size, inside=inside, by=by)
        texture = textures[by.integers(len(textures))]
        picture = _lay(picture, mask, texture=texture, by=by)
        for earlier in masks:
            if inside is not earlier:
                earlier[mask > 0] = 0
        masks.append(mask)
    seen = [mask for mask in masks if mask.sum() >= LEAST_PX]
    return np.clip(picture, 0, 255).astype(np.uint8), seen


def outline(size: int, *, inside: Mask | None, by: np.random.Generator) -> Mask:
    """A filled smooth closed curve: an ellipse whose radius a few harmonics change."""
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angles)
    roughness = by.choice([0.0, 0.15, 0.35, 0.6])
    for harmonic in range(2, int(by.integers(3, 9))):
        phase, weight = by.uniform(0, 2 * np.pi), by.normal() * roughness / harmonic
        radius += weight * np.cos(harmonic * angles + phase)
    radius = np.maximum(radius, 0.15)
    largest = size * np.exp(by.uniform(np.log(0.04), np.log(0.4)))
    centre = by.uniform(0.08, 0.92, 2) * size
    if inside is not None and inside.any():
        rows, columns = np.nonzero(inside)
        pick = by.integers(rows.size)
        centre = np.array([columns[pick], rows[pick]], float)
        largest = min(largest, 0.35 * np.sqrt(rows.size))
    half = largest * np.array([1.0, by.uniform(0.25, 1.0)])
    turn = by.uniform(0, np.pi)
    x, y = half[0] * radius * np.cos(angles), half[1] * radius * np.sin(angles)
    points = np.stack(
        [
            centre[0] + np.cos(turn) * x - np.sin(turn) * y,
            centre[1] + np.sin(turn) * x + np.cos(turn) * y,
        ],
        axis=1,
    )
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [(points * 16).round().astype(np.int32)], 1, shift=4)
    if inside is not None:
        mask &= inside
    return mask


def _lay(
    picture: npt.NDArray[np.float32], mask: Mask, *, texture: Rgb, by: np.random.Generator
) -> npt.NDArray[np.float32]:
    alpha = mask.astype(np.float32)
    softness = by.choice([0.0, 0.6, 1.2, 2.2])
    if softness:
        alpha = cv2.GaussianBlur(alpha, (0, 0), softness)  # type: ignore[assignment]
    alpha = alpha[..., None]
    values = texture.astype(np.float32)
    if by.random() < 0.5:
        values = cv2.GaussianBlur(values, (0, 0), by.uniform(1, 8))  # type: ignore[assignment]
    inside = mask > 0
    if not inside.any():
        return picture
    # A contrast to what it covers: from hardly to be seen to stark, brighter or darker.
    below = picture[inside].mean(axis=0)
    contrast = by.choice([-1, 1]) * np.exp(by.uniform(np.log(12), np.log(110)))
    grain = by.uniform(0.1, 1.0)
    spread = values[inside]
    values = (values - spread.mean(axis=0)) * np.float32(grain)
    values = values + np.clip(below + contrast, 0, 255).astype(np.float32)
    if by.random() < 0.2:  # a wall around it
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        values = values + edge[..., None] * np.float32(by.uniform(-80, 80))
    # Some of what lies below shines through.
    opacity = np.float32(by.uniform(0.6, 1.0))
    mixed = picture * (1 - alpha * opacity) + values * (alpha * opacity)
    return mixed.astype(np.float32)  # type: ignore[no-any-return]
