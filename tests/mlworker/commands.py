"""Commands as the server sends them, for slices that are put into the store beforehand."""

from __future__ import annotations

import time
import uuid
from typing import Any

import numpy as np

from mlworker.contract.artifacts import Array, array_digest
from mlworker.contract.learning import ScoreItem, ScoreSlices
from mlworker.contract.messages import (
    AddCheckpoint,
    EncodeItem,
    EncodeSlices,
    FromPackage,
    FromSeed,
    FromUpload,
    SegmentSlice,
    SliceImage,
    Window,
)
from mlworker.storage import Store


def ct_slice(height: int = 60, width: int = 80, *, shift: int = 0) -> Array:
    """Stored values of something like a slice of CT."""
    y, x = np.mgrid[:height, :width]
    body = ((x - 0.5 * width) / (0.4 * width)) ** 2 + ((y - 0.5 * height) / (0.4 * height)) ** 2 < 1
    values: Array = np.where(body, 1064, 24) + (x + y + shift) % 17
    return values.astype(np.int16)


def stored_image(store: Store, pixels: Array) -> SliceImage:
    """A slice whose pixels lie in the store."""
    key = f"studies/{uuid.uuid4()}/{uuid.uuid4()}.npy"
    store.put_array(key, pixels)
    return SliceImage(
        pixels_key=key,
        pixels_digest=array_digest(pixels),
        height=pixels.shape[0],
        width=pixels.shape[1],
        intercept=-1024.0,
        window=None if pixels.ndim == 3 else Window(centre=40.0, width=400.0),
    )


def encode(*images: SliceImage, model_digest: str) -> EncodeSlices:
    """The command to prepare slices."""
    return EncodeSlices(
        model_digest=model_digest,
        items=tuple(EncodeItem(encoding_id=str(uuid.uuid4()), image=image) for image in images),
    )


def score(*images: SliceImage, model_digest: str) -> ScoreSlices:
    """The command to say how sure a model is."""
    return ScoreSlices(
        ranking_id=str(uuid.uuid4()),
        model_digest=model_digest,
        items=tuple(ScoreItem(slice_id=str(uuid.uuid4()), image=image) for image in images),
    )


def segment(image: SliceImage, *, model_digest: str, **prompts: Any) -> SegmentSlice:
    """Prompts on a slice, by someone who waits for five seconds."""
    return SegmentSlice(**awaited(), model_digest=model_digest, image=image, **prompts)


def add(source: FromSeed | FromUpload | FromPackage) -> AddCheckpoint:
    """The command to bring a model into the store."""
    return AddCheckpoint(**awaited(), source=source)


def awaited(*, timeout_s: float = 5.0) -> dict[str, Any]:
    """What every awaited command carries."""
    now = time.time()
    return {
        "request_id": str(uuid.uuid4()),
        "reply_to": f"replies:{uuid.uuid4()}",
        "sent_at": now,
        "expires_at": now + timeout_s,
    }
