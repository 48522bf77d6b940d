"""A model as ONNX files, for other runtimes; what is written has been run and compared.

``encoder.onnx``: image (B, 3, size, size), normalised -> embedding (B, 256, size / 16, size / 16).
``decoder.onnx``: embedding (1, 256, 16, 16), point_coords (1, n, 2) xy in model pixels,
point_labels (1, n), mask_input (1, 1, 64, 64) probabilities, has_mask (1) of 0 or 1 ->
low_res_logits (1, 3, 64, 64), predicted_iou (1, 3). Labels are those of segment-anything's own
export: 1 inside, 0 outside, 2 and 3 a box's first and second corner, -1 none; without a box one
point of label -1 is appended, as its prompt encoder does.
``decoder-browser.onnx``: the same with weights stored in half precision, computed with in single.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mlworker.inference.predictor import dense_positions
from mlworker.model.checkpoint import Checkpoint
from mlworker.model.decode import decode
from mlworker.model.drawing import DrawingPromptEncoder, draw
from mlworker.model.torchvision_operators import modeling

TOLERANCE: Final = 1e-3
# Half precision keeps eleven bits of each weight.
BROWSER_TOLERANCE: Final = 5e-2
BROWSER_BYTES: Final = 10_000_000
OPSET: Final = 18
_LARGE: Final = 256  # values; smaller tensors are not worth a node

Arrays = dict[str, npt.NDArray[Any]]


class ExportError(ValueError):
    """An exported model does not do what the model does."""


def export(checkpoint: Checkpoint, to: Path) -> dict[str, float]:
    """Write the three files into the folder ``to``; the largest difference of each from torch.

    Raises ExportError.
    """
    to.mkdir(parents=True, exist_ok=True)
    size = checkpoint.metadata.image_size
    encoder = checkpoint.image_encoder()
    decoder = PromptedDecoder(checkpoint.prompt_encoder(), checkpoint.mask_decoder())
    by = np.random.default_rng(0)
    images = {"image": by.standard_normal((2, 3, size, size), dtype=np.float32)}
    prompts = [_example(size, points=points, with_mask=mask, by=by) for points, mask in _FORMS]

    _write(encoder, images, to / "encoder.onnx", outputs=("embedding",), dynamic={"image": 0})
    _write(
        decoder,
        prompts[0],
        to / "decoder.onnx",
        outputs=("low_res_logits", "predicted_iou"),
        dynamic={"point_coords": 1, "point_labels": 1},
    )
    _halve(to / "decoder.onnx", to / "decoder-browser.onnx")
    if (written := (to / "decoder-browser.onnx").stat().st_size) > BROWSER_BYTES:
        raise ExportError(f"the browser's decoder takes {written} bytes, over {BROWSER_BYTES}")
    return {
        "encoder.onnx": _compare(encoder, [images], to / "encoder.onnx", TOLERANCE),
        "decoder.onnx": _compare(decoder, prompts, to / "decoder.onnx", TOLERANCE),
        "decoder-browser.onnx": _compare(
            decoder, prompts, to / "decoder-browser.onnx", BROWSER_TOLERANCE
        ),
    }


class PromptedDecoder(nn.Module):
    """Prompt encoder and mask decoder as one function of arrays."""

    def __init__(self, prompt_encoder: nn.Module, mask_decoder: nn.Module) -> None:
        super().__init__()
        self.prompt_encoder = cast(modeling.PromptEncoder, prompt_encoder)
        self.mask_decoder = mask_decoder
        with torch.no_grad():
            self.register_buffer("positions", dense_positions(prompt_encoder))

    def forward(
        self,
        embedding: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See the module's description."""
        if isinstance(self.prompt_encoder, DrawingPromptEncoder):
            mask_input = draw(mask_input, has_mask, point_coords, point_labels)
            has_mask = torch.ones_like(has_mask)
        mask = self.prompt_encoder.mask_downscaling(mask_input)
        none = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        logits, ious = decode(
            self.mask_decoder,
            embeddings=embedding,
            positions=cast(Tensor, self.positions),
            sparse=self._points(point_coords, point_labels),
            dense=has_mask * mask + (1 - has_mask) * none.expand_as(mask),
        )
        return logits[:, 1:], ious[:, 1:]

    def _points(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        encoder = self.prompt_encoder
        size = float(encoder.input_image_size[0])
        # As PositionEmbeddingRandom.forward_with_coords: pixels' centres, in shares of the image.
        turns = (2 * (coordinates + 0.5) / size - 1) @ (
            encoder.pe_layer.positional_encoding_gaussian_matrix
        )
        places = torch.cat([torch.sin(2 * torch.pi * turns), torch.cos(2 * torch.pi * turns)], -1)
        kinds = labels[..., None]
        embedded = torch.where(kinds == -1, encoder.not_a_point_embed.weight, places)
        for kind, learnt in enumerate(encoder.point_embeddings):
            embedded = embedded + (kinds == kind) * learnt.weight
        return embedded


# (points' labels, with a mask): what an export is compared on.
_FORMS: Final = (
    ((1.0, 0.0, -1.0), False),
    ((1.0, -1.0), True),
    ((2.0, 3.0), False),
    ((1.0, 0.0, 0.0, 2.0, 3.0), True),
)


def _example(
    size: int, *, points: tuple[float, ...], with_mask: bool, by: np.random.Generator
) -> Arrays:
    tokens = size // 16
    return {
        "embedding": by.standard_normal((1, 256, tokens, tokens), dtype=np.float32),
        "point_coords": by.uniform(0, size, (1, len(points), 2)).astype(np.float32),
        "point_labels": np.array([points], np.float32),
        "mask_input": by.random((1, 1, size // 4, size // 4), dtype=np.float32),
        "has_mask": np.array([float(with_mask)], np.float32),
    }


def _write(
    module: nn.Module,
    inputs: Arrays,
    to: Path,
    *,
    outputs: tuple[str, ...],
    dynamic: Mapping[str, int],
) -> None:
    shapes = {
        name: {dynamic[name]: torch.export.Dim("n" if dynamic[name] else "batch")}
        if name in dynamic
        else None
        for name in inputs
    }
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter's own: its use of what torch and copyreg are about to drop.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(torch.from_numpy(value) for value in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(shapes.values()),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(to, external_data=False)


def _halve(source: Path, to: Path) -> None:
    """Store the large weights in half precision, each widened again before it is used."""
    model = onnx.load(source)
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < _LARGE:
            continue
        name, values = weight.name, onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, to)


def _compare(module: nn.Module, examples: list[Arrays], path: Path, tolerance: float) -> float:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for inputs in examples:
        with torch.no_grad():
            expected = module(*(torch.from_numpy(value) for value in inputs.values()))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(expected, session.run(None, inputs), strict=True):
            largest = max(largest, float(np.abs(one.numpy() - other).max()))
    if not largest <= tolerance:
        raise ExportError(f"{path.name} differs by {largest:.2g} from the model, over {tolerance}")
    return largest
