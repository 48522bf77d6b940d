"""What a worker keeps in memory between commands: models by digest, embeddings by key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor

from mlworker.contract.artifacts import ArtifactError, checkpoint_key
from mlworker.inference.encoder import Encoding, Precision, packed
from mlworker.inference.geometry import Frame
from mlworker.inference.predictor import Predictor
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint, digest_of_file
from mlworker.storage import ArtifactMissing, Store

# The active model and the one before it, which open sessions may still use.
MODELS_KEPT: Final = 2
EMBEDDING_SHAPE: Final = (sam_med2d.CHANNELS, 16, 16)

Part = TypeVar("Part")


class Models(Generic[Part]):
    """The last few models, each reduced to the part that this process needs."""

    def __init__(self, store: Store, *, part: Callable[[Checkpoint], Part]) -> None:
        self._store = store
        self._part = part
        self._kept: OrderedDict[str, Part] = OrderedDict()

    def get(self, model_digest: str) -> Part:
        """The part of the model ``model_digest``; raises ArtifactMissing, ArtifactError."""
        if model_digest not in self._kept:
            with self._store.as_file(checkpoint_key(model_digest)) as path:
                if digest_of_file(path) != model_digest:
                    raise ArtifactError(f"the checkpoint {model_digest[:8]} is not what was stored")
                self._kept[model_digest] = self._part(Checkpoint(path))
            while len(self._kept) > MODELS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(model_digest)
        return self._kept[model_digest]


class Embeddings:
    """Embeddings from the store, the most recently used of them in memory."""

    def __init__(self, store: Store, *, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Tensor | None:
        """(256, 16, 16) float32, or None when it has not been made; raises ArtifactError."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            array = self._store.get_array(key)
        except ArtifactMissing:
            return None
        if array.shape != EMBEDDING_SHAPE:
            raise ArtifactError(f"an embedding has the shape {array.shape}")
        embedding = torch.from_numpy(array).float()
        self._kept[key] = embedding
        self._bytes += embedding.nbytes
        while self._bytes > self._limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
        return embedding


def decoding_part(checkpoint: Checkpoint) -> Predictor:
    """What the interactive worker needs of a model: 16 MB of ViT-B's 1.1 GB."""
    return Predictor(
        checkpoint.prompt_encoder(), checkpoint.mask_decoder(), frame=frame_of(checkpoint)
    )


def encoding_part(checkpoint: Checkpoint, *, precision: Precision = "auto") -> Encoding:
    """What the encode worker needs of a model; raises PrecisionError."""
    image_encoder = packed(checkpoint.image_encoder(), precision=precision)
    return Encoding(image_encoder, frame_of(checkpoint))


def frame_of(checkpoint: Checkpoint) -> Frame:
    """How a model's slices are prepared."""
    metadata = checkpoint.metadata
    return Frame(preparation=metadata.preparation, size=metadata.image_size)
