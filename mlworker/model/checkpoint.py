"""Checkpoints: safetensors, which cannot carry code. Their digest is their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from mlworker.contract.messages import Digest, Variant
from mlworker.model import sam_med2d

METADATA_KEY: Final = "delineate"
PROBLEMS_LISTED: Final = 10  # of a file that is not of the model it says, of each kind


class CheckpointError(ValueError):
    """A file that is not a checkpoint of ours, or not of the model it says."""


class OtherModel(CheckpointError):
    """Weights that are missing, not expected or of another shape."""


class Metadata(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    variant: Variant
    # Bounded, because it decides how much is allocated before the weights are compared with it.
    image_size: Annotated[int, Field(ge=16, le=1024, multiple_of=sam_med2d.PATCH)]
    adapters: bool
    preparation: Literal[1, 2] = 1
    trained: bool
    origin: str  # in words: "seed 7", or what was trained from what, and how
    parent: Digest | None = None  # of the file that it was made from
    training_data: Digest | None = None  # of the manifest that it learnt from
    code_version: str | None = None  # of this package, where it was trained
    metrics: dict[str, float] = {}


def digest(data: bytes) -> str:
    """A checkpoint's identity: SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """The identity of the checkpoint in a file, which is not read into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """What a training writes into its checkpoint's metadata."""
    return version("delineate")


def pack(
    state: Mapping[str, Tensor], metadata: Metadata, *, precision: torch.dtype | None = None
) -> bytes:
    """A checkpoint's bytes; the same state and metadata give the same bytes.

    ``precision`` is what weights are stored in, as they are without it; half is enough to serve
    and takes half the space. Raises CheckpointError where a weight is beyond half's range.
    """
    stored = {key: _stored(key, value, precision=precision) for key, value in state.items()}
    # What is not known is not written: a field that is added later leaves these bytes as they are.
    stated = metadata.model_dump_json(exclude_none=True)
    return safetensors.torch.save(stored, metadata={METADATA_KEY: stated})


def _stored(key: str, value: Tensor, *, precision: torch.dtype | None) -> Tensor:
    stored = value.to(precision or value.dtype).contiguous()
    if stored.dtype != value.dtype and not stored.isfinite().all():
        raise CheckpointError(f"{key} does not fit {str(stored.dtype).removeprefix('torch.')}")
    return stored


class Checkpoint:
    """A checkpoint's file: its metadata, and its weights part by part.

    Only what is asked for is read: an interactive worker takes 16 MB of ViT-B's 1.1 GB.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError for a file that is not a checkpoint of ours."""
        self._path = path
        with self._opened() as file:
            try:
                self.metadata = Metadata.model_validate_json((file.metadata() or {})[METADATA_KEY])
            except (ValidationError, KeyError) as error:
                raise CheckpointError(f"not a checkpoint of ours: {error}") from error

    def image_encoder(self) -> nn.Module:
        """The image encoder, loaded, frozen and in evaluation mode."""
        with _without_weights():
            module = sam_med2d.build_image_encoder(
                self.metadata.variant,
                image_size=self.metadata.image_size,
                adapters=self.metadata.adapters,
            )
        return self._loaded("image_encoder.", module)

    def prompt_encoder(self) -> nn.Module:
        """The prompt encoder, likewise."""
        with _without_weights():
            module = sam_med2d.build_prompt_encoder(
                self.metadata.variant, image_size=self.metadata.image_size
            )
        return self._loaded("prompt_encoder.", module)

    def mask_decoder(self) -> nn.Module:
        """The mask decoder, likewise."""
        with _without_weights():
            module = sam_med2d.build_mask_decoder()
        return self._loaded("mask_decoder.", module)

    def _loaded(self, prefix: str, module: nn.Module) -> nn.Module:
        with self._opened() as file:
            # Copied: what safe_open gives is a view of the file, which may be evicted or removed.
            # Weights may be stored in half precision; they are computed with in single.
            state = {
                key.removeprefix(prefix): file.get_tensor(key).to(torch.float32, copy=True)
                for key in file.keys()  # noqa: SIM118 (safe_open is no mapping)
                if key.startswith(prefix)
            }
        load_strictly(module, state)
        return module

    @contextmanager
    def _opened(self) -> Iterator[Any]:  # a safe_open, whose methods carry no types
        try:
            file = safetensors.safe_open(self._path, framework="pt")
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"not a checkpoint of ours: {error}") from error
        with file as opened:
            yield opened


def _without_weights() -> torch.device:
    # Random weights that the checkpoint's replace at once cost seconds for ViT-B.
    return torch.device("meta")


def untrained(variant: Variant, *, seed: int) -> bytes:
    """A checkpoint of random weights, the same for the same seed on every machine."""
    with _without_weights():
        model = sam_med2d.build(variant)
    state = {key: random_weight(key, value, seed=seed) for key, value in model.state_dict().items()}
    return pack(
        state,
        Metadata(
            variant=variant,
            image_size=sam_med2d.IMAGE_SIZE,
            adapters=True,
            trained=False,
            origin=f"seed {seed}",
        ),
    )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load all of a module's weights; OtherModel lists what is missing or not expected."""
    refuse_misfits(
        {key: _form(value) for key, value in state.items()},
        {key: _form(value) for key, value in module.state_dict().items()},
    )
    module.load_state_dict(dict(state), strict=True, assign=True)
    module.requires_grad_(requires_grad=False)


def refuse_misfits(given: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Compare what each weight is with what it should be; OtherModel lists the differences."""
    shared = sorted(expected.keys() & given.keys())
    problems = [
        *few([f"{key} is missing" for key in sorted(expected.keys() - given.keys())]),
        *few([f"{key} is not expected" for key in sorted(given.keys() - expected.keys())]),
        *few(
            [
                f"{key} is {given[key]} instead of {expected[key]}"
                for key in shared
                if given[key] != expected[key]
            ]
        ),
    ]
    if problems:
        raise OtherModel(f"the weights do not fit the model: {'; '.join(problems)}")


def few(problems: list[str]) -> list[str]:
    """As many as somebody reads, then their number."""
    more = len(problems) - PROBLEMS_LISTED
    return [*problems[:PROBLEMS_LISTED], *([f"and {more} more like it"] if more > 0 else [])]


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def random_weight(key: str, like: Tensor, *, seed: int) -> Tensor:
    """A weight by its name and the seed, scaled by its fan-in so that activations keep their size.

    Only the shape of ``like`` counts; it may be a tensor without memory.
    """
    name = int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "little")
    values = np.random.Generator(np.random.PCG64(name)).standard_normal(
        tuple(like.shape), dtype=np.float32
    )
    if key.endswith("positional_encoding_gaussian_matrix"):
        scale, offset = 1.0, 0.0
    elif "pos_embed" in key or "rel_pos" in key:
        scale, offset = 0.02, 0.0
    elif like.dim() == 1:
        scale, offset = 0.1, 1.0 if key.endswith("weight") else 0.0
    else:
        scale, offset = float(np.prod(like.shape[1:])) ** -0.5, 0.0
    return torch.from_numpy(offset + np.float32(scale) * values)
