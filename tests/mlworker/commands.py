"""Commands as the server sends them, for slices that are put into the store beforehand."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any

import numpy as np

from mlworker.contract import masks
from mlworker.contract.artifacts import Array, array_digest, learning_set_key
from mlworker.contract.learning import (
    LearningImage,
    LearningMask,
    LearningSet,
    ScoreItem,
    ScoreSlices,
    StoredSet,
)
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


def learning_set(store: Store) -> StoredSet:
    """Of two subjects to learn from and one held out: a slice each, with a liver and no spleen."""
    items = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(-500, 500, (48, 64), dtype=np.int16)
        liver = np.zeros((48, 64), bool)
        liver[8 + number : 30, 10:40] = True
        drawn = {"liver": masks.encode(liver), "spleen": masks.empty(48, 64)}
        items.append(
            LearningImage(
                slice_id=str(uuid.UUID(int=number + 1)),
                image=stored_image(store, pixels).model_copy(
                    update={"intercept": 0.0, "window": Window(centre=0, width=1000)}
                ),
                modality="CT",
                subject=f"S-{number}",
                part="held_out" if number == 2 else "train",
                masks=tuple(
                    LearningMask(
                        revision_id=str(uuid.UUID(int=100 * place + number)), label=label, mask=mask
                    )
                    for place, (label, mask) in enumerate(drawn.items(), start=1)
                ),
            )
        )
    content = LearningSet(items=tuple(items)).model_dump_json().encode()
    digest = hashlib.sha256(content).hexdigest()
    key = learning_set_key(digest)
    store.put(key, content)
    return StoredSet(key=key, digest=digest)


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
