"""Exported models, run by onnxruntime, against what the worker serves."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from mlworker.cli import main
from mlworker.contract.messages import Box, Point
from mlworker.inference import export_onnx
from mlworker.inference.cache import decoding_part, encoding_part
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint, untrained

INSIDE, ELSEWHERE = Point(x=60, y=80, positive=True), Point(x=9, y=200, positive=False)
BOX = Box(x0=30, y0=40, x1=120, y1=150)


@pytest.fixture(scope="module", params=["vit_t", "hybrid_t"])
def exported(request, tmp_path_factory):
    """A model with a tiny encoder, and the folder of its export."""
    folder = tmp_path_factory.mktemp("onnx")
    hybrid = request.param == "hybrid_t"
    tiny = sam_med2d.Encoder(dim=32, depth=2, heads=2, global_blocks=(1,), hybrid=hybrid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sam_med2d.ENCODERS, request.param, tiny)
        path = folder / "model.safetensors"
        path.write_bytes(untrained(request.param, seed=3))
        command = ["export-onnx", "--checkpoint", str(path), "--to", str(folder)]
        assert main(command) == 0
        yield Checkpoint(path), folder


@pytest.fixture(scope="module")
def embedding():
    return np.random.default_rng(1).standard_normal((1, 256, 16, 16), dtype=np.float32)


def run(folder, name: str, **inputs):
    session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def test_images_of_any_number_get_the_embeddings_that_are_served(exported) -> None:
    checkpoint, folder = exported
    encoding = encoding_part(checkpoint, precision="float32")
    slices = list(np.random.default_rng(2).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8))
    images = torch.stack([encoding.frame.model_input(rgb) for rgb in slices]).numpy()

    (embeddings,) = run(folder, "encoder.onnx", image=images)

    # Served embeddings are rounded to half precision.
    for one, other in zip(embeddings, encoding.encode(slices), strict=True):
        assert np.abs(one - other).max() <= 1e-3 + 2.0**-8 * np.abs(one).max()


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize(
    ("points", "box"),
    [((INSIDE,), None), ((INSIDE, ELSEWHERE, INSIDE), None), ((), BOX), ((ELSEWHERE,), BOX)],
    ids=["a point", "three points", "a box", "a box and a point"],
)
def test_prompts_get_the_masks_that_are_served(exported, embedding, points, box, with_mask) -> None:
    checkpoint, folder = exported
    mask = np.random.default_rng(4).random((64, 64), dtype=np.float32)
    logits, ious = decoding_part(checkpoint).candidates(
        torch.from_numpy(embedding[0]),
        height=256,
        width=256,
        points=points,
        box=box,
        mask_prompt=torch.from_numpy(mask) if with_mask else None,
    )
    coordinates = [(point.x, point.y) for point in points]
    labels = [float(point.positive) for point in points]
    if box is None:
        coordinates, labels = [*coordinates, (0, 0)], [*labels, -1]
    else:
        coordinates += [(box.x0, box.y0), (box.x1, box.y1)]
        labels += [2, 3]
    inputs = {
        "embedding": embedding,
        "point_coords": np.array([coordinates], np.float32),
        "point_labels": np.array([labels], np.float32),
        "mask_input": mask[None, None],
        "has_mask": np.array([with_mask], np.float32),
    }

    for name, tolerance in (("decoder.onnx", 1e-3), ("decoder-browser.onnx", 5e-2)):
        found_logits, found_ious = run(folder, name, **inputs)
        assert np.abs(found_logits[0] - logits.numpy()).max() < tolerance, name
        assert np.abs(found_ious[0] - ious.numpy()).max() < tolerance, name


def test_the_browser_s_decoder_is_small(exported) -> None:
    _, folder = exported

    assert (folder / "decoder-browser.onnx").stat().st_size <= export_onnx.BROWSER_BYTES


def test_an_export_that_differs_is_refused(exported, monkeypatch) -> None:
    checkpoint, folder = exported
    monkeypatch.setattr(export_onnx, "_write", lambda *_, **__: None)
    monkeypatch.setattr(export_onnx, "BROWSER_TOLERANCE", 0.0)

    with pytest.raises(export_onnx.ExportError, match=r"decoder-browser\.onnx differs by"):
        export_onnx.export(checkpoint, folder)


def test_what_is_no_checkpoint_is_refused(tmp_path, capsys) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(b"nothing")

    assert main(["export-onnx", "--checkpoint", str(path), "--to", str(tmp_path)]) == 1
    assert "not a checkpoint of ours" in capsys.readouterr().err
