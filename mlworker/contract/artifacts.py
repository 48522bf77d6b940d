"""Keys and packing of what both sides keep in the object store.

Keys never contain anything a client chose. Arrays are ``.npy`` (self-describing, read with
``allow_pickle=False``) and are addressed by their digest wherever equal input must give equal keys.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from mlworker.contract.messages import SliceImage

Array = npt.NDArray[Any]


class ArtifactError(ValueError):
    """Bytes that are not the array they should be."""


def pack_array(array: Array) -> bytes:
    """Bytes of an array: ``.npy`` version 1, C order."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack_array(data: bytes) -> Array:
    """The array of ``pack_array``; raises ArtifactError for anything else."""
    try:
        array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"not a packed array: {error}") from error
    return array


def array_digest(array: Array) -> str:
    """SHA-256 over type, shape and values: equal arrays have equal digests."""
    header = json.dumps([array.dtype.str, list(array.shape)])
    digest = hashlib.sha256(header.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def pixels_key(study_id: str, slice_id: str) -> str:
    """Stored values of one slice, (rows, columns) or (rows, columns, 3)."""
    return f"studies/{study_id}/{slice_id}.npy"


def study_prefix(study_id: str) -> str:
    """Everything that is kept of a study's pixels."""
    return f"studies/{study_id}/"


def checkpoint_key(digest: str) -> str:
    """A model's weights with their metadata, safetensors."""
    return f"models/{digest}.safetensors"


def upload_key(upload_id: str) -> str:
    """Somebody's checkpoint as it was uploaded, until the worker has read it."""
    return f"uploads/models/{upload_id}"


def embedding_key(image: SliceImage, *, model_digest: str) -> str:
    """Content address of a slice's embedding, (256, 16, 16) float16 at 256 px.

    Equal pixels, prepared equally, and an equal model give an equal key: nothing is encoded twice,
    and a new model invalidates exactly what it must. Where the pixels lie does not matter.
    """
    content = json.dumps(
        [image.model_dump(mode="json", exclude={"pixels_key"}), model_digest], sort_keys=True
    )
    return f"embeddings/{model_digest[:16]}/{hashlib.sha256(content.encode()).hexdigest()}.npy"


def logits_key(proposal_id: str) -> str:
    """Redis key of a proposal's low-resolution logits, (64, 64) float16, kept for ten minutes."""
    return f"logits:{proposal_id}"


def learning_set_key(snapshot_id: str) -> str:
    """A LearningSet as JSON, for as long as a run needs it."""
    return f"snapshots/{snapshot_id}.json"


def run_prefix(run_id: str) -> str:
    """Everything that a fine-tuning keeps: its state, its log, its curves for TensorBoard."""
    return f"runs/{run_id}/"


def evaluation_key(evaluation_id: str) -> str:
    """EvaluationResults as JSON."""
    return f"evaluations/{evaluation_id}.json"


def stop_key(run_id: str) -> str:
    """Redis key whose presence asks a run to stop; it expires with the longest run."""
    return f"stop:{run_id}"
