"""The reference model, made once: ViT-B with weights that are functions of their keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlworker.inference.geometry import Rgb
from mlworker.inference.predictor import Predictor
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import load_strictly, untrained
from mlworker.model.sam_med2d import SamMed2D
from tests.mlworker import reference
from tests.mlworker.reference import Vectors


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def reference_model() -> SamMed2D:
    """SAM-Med2D, ViT-B, with the reference's weights."""
    model = sam_med2d.build("vit_b")
    load_strictly(model, reference.weights(reference.published_shapes().items()))
    return model


@pytest.fixture(scope="session")
def reference_predictor(reference_model) -> Predictor:
    """Its prompt encoder and mask decoder."""
    return Predictor(reference_model.prompt_encoder, reference_model.mask_decoder)


@pytest.fixture(scope="session")
def portable() -> Vectors:
    """The vectors that travel with the repository."""
    return reference.portable()


@pytest.fixture(scope="session")
def published(shared_folder) -> Vectors:
    """The vectors of two of the published code's own demo slices."""
    path = shared_folder / "golden/reference.npz"
    if not path.is_file():
        pytest.skip(f"The published slices' vectors are not at {path}.")
    with np.load(path) as vectors:
        return dict(vectors)


@pytest.fixture(scope="session")
def published_images(shared_folder) -> dict[str, Rgb]:
    """The published code's demo slices themselves, by name."""
    folder = shared_folder / "data/sam-med2d-demo/images"
    if not folder.is_dir():
        pytest.skip(f"The published slices are not at {folder}.")
    return {
        name: np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
        for name in ("amos_0004_75", "s0114_111")
    }


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """The small untrained model that a new installation has."""
    path: Path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    path.write_bytes(untrained("vit_t", seed=15))
    return path
