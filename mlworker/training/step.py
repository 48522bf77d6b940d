"""One step of fine-tuning (SAM-Med2D, arXiv 2308.16184, section 4.1, and its code).

A step is the session of a simulated annotator, with a move of the optimiser after each answer:

1. A few images, each encoded once, with some of their masks each. All of them are asked for by a
   box, or all by a point. What learns is the chosen part of the image encoder, the prompt encoder
   and the mask decoder.
2. Corrections, on the same embeddings, which no longer change: points where the last answer was
   wrong and the answer itself as a mask, as probabilities; two of them with the mask alone, one
   anywhere after the first, and the last. What learns is the mask decoder.

The published code makes its point and box embeddings anew in every call, so that they never learn;
here they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlworker.contract.messages import Box
from mlworker.inference.geometry import Frame, normalise
from mlworker.inference.predictor import dense_positions
from mlworker.model.decode import decode
from mlworker.model.sam_med2d import SamMed2D
from mlworker.training import losses, processes, simulate
from mlworker.training.dataset import DrawnImage
from mlworker.training.settings import Settings, Trainable

_LARGE: Final = 1_000_000  # values of a weight


class NotFinite(ValueError):
    """The loss or the weights have become infinite or undefined."""


@dataclass(frozen=True)
class Part:
    """A batch of images, and the chance that each of them is asked with."""

    images: list[DrawnImage]
    chances: list[np.random.Generator]


class Trainer:
    """A model with its optimiser, and the step."""

    def __init__(self, model: SamMed2D, *, settings: Settings, frame: Frame, device: torch.device):
        self.model = model.to(device)
        self.settings = settings
        self._frame = frame
        self._device = device
        self._dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        self.learning: dict[str, nn.Parameter] = {}
        for key, parameter in model.named_parameters():
            chosen = learns(key, trainable=settings.trainable)
            parameter.requires_grad_(chosen)
            if chosen:
                self.learning[key] = parameter
        self._began_with = (
            {key: value.detach().clone() for key, value in self.learning.items()}
            if settings.blend < 1
            else {}
        )
        # With one backward pass before each move, large weights move as soon as their gradient is
        # there, which is then dropped: the gradients of all adapters alone are 0.7 GB.
        at_once = settings.accumulate == 1 and processes.count() == 1
        large = [p for p in self.learning.values() if at_once and p.numel() >= _LARGE]
        small = [p for p in self.learning.values() if not (at_once and p.numel() >= _LARGE)]
        self._optimiser = _adam(small)
        self._of_large = {parameter: _adam([parameter]) for parameter in large}
        for parameter, optimiser in self._of_large.items():
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _, of=optimiser: _move(of)
            )
        with torch.no_grad():
            self._positions = dense_positions(model.prompt_encoder)
        self._enlarging = _enlarging(frame.size // 4, frame.size).to(device)

    def step(
        self, parts: Sequence[Part], *, chance: np.random.Generator, rate: float
    ) -> tuple[float, float]:
        """One session of each part; the mean loss of its answers, and the last answers' Dice.

        Each part is a batch of its own, whose gradients are averaged. Raises NotFinite.
        """
        settings = self.settings
        for optimiser in (self._optimiser, *self._of_large.values()):
            optimiser.param_groups[0]["lr"] = rate
        sessions = [self._session(part) for part in parts]
        boxes = chance.random() < settings.box_share
        told = [
            self._descend(
                self._first_answer(session, part.images, boxes=boxes)
                for session, part in zip(sessions, parts, strict=True)
            )
        ]
        last = settings.corrections - 1
        alone = {last, int(chance.integers(1, last)) if last > 1 else last}
        for number in range(settings.corrections):
            points = None if number in alone else int(chance.choice(settings.points))
            told.append(self._descend(self._correction(s, points=points) for s in sessions))
        dice = [_dice(session.last_answer(), session.truth) for session in sessions]
        return float(np.mean(told)), processes.mean(float(np.mean(dice)))

    def state(self) -> dict[str, Any]:
        """What a run needs to go on: the weights that learn, and the optimiser's moments."""
        return {
            "weights": {key: value.detach() for key, value in self.learning.items()},
            "moments": {
                key: dict(self._moments(value))
                for key, value in self.learning.items()
                if self._moments(value)
            },
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from such a state of an equal model."""
        with torch.no_grad():
            for key, value in self.learning.items():
                value.copy_(state["weights"][key])
                for name, moment in state["moments"].get(key, {}).items():
                    self._moments(value)[name] = moment.to(self._device, copy=True)

    @contextmanager
    def as_kept(self) -> Iterator[SamMed2D]:
        """The model as it is kept, by the settings' blend with the weights it began with."""
        if self.settings.blend == 1:
            yield self.model
            return
        learnt = {key: value.detach().clone() for key, value in self.learning.items()}
        with torch.no_grad():
            for key, value in self.learning.items():
                value.copy_(torch.lerp(self._began_with[key], value, self.settings.blend))
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for key, value in self.learning.items():
                    value.copy_(learnt[key])

    def refuse_not_finite(self) -> None:
        """Raises NotFinite where a weight is: such weights are not worth keeping."""
        with torch.no_grad():
            # A sum is as good as looking at each, and needs no memory.
            if not all(bool(value.sum().isfinite()) for value in self.learning.values()):
                raise NotFinite("weights have become infinite or undefined")

    def _session(self, part: Part) -> Session:
        truth = np.concatenate([image.masks for image in part.images])
        target = torch.from_numpy(truth).to(self._device, torch.float32)
        masks = len(part.images[0].masks)
        return Session(truth=truth, target=target, by=part.chances, masks=masks)

    def _first_answer(self, session: Session, images: list[DrawnImage], *, boxes: bool) -> Tensor:
        pixels = torch.stack([normalise(image.image) for image in images]).to(self._device)
        encoder_learns = self.settings.trainable != "decoder"
        with self._mixed(), torch.set_grad_enabled(encoder_learns):
            encoded = self.model.image_encoder(pixels).float()
        embeddings = encoded.repeat_interleave(session.masks, dim=0)
        session.embeddings = embeddings.detach()
        if boxes:
            drawn = [simulate.shifted_box(mask, by=by) for _, mask, by in session.rows()]
            sparse, dense = self._prompts(boxes=np.stack(drawn))
        else:
            clicks = [simulate.first_point(mask, by=by) for _, mask, by in session.rows()]
            sparse, dense = self._prompts(points=clicks)
        return self._answer(session, embeddings, sparse, dense)

    def _correction(self, session: Session, *, points: int | None) -> Tensor:
        assert session.embeddings is not None
        answered = session.last_answer()
        clicks = None
        if points is not None:
            clicks = [
                simulate.corrections(answered[row], mask, count=points, by=by)
                for row, mask, by in session.rows()
            ]
        with torch.no_grad():
            sparse, dense = self._prompts(points=clicks, masks=session.prior)
        return self._answer(session, session.embeddings, sparse, dense)

    def _prompts(
        self,
        *,
        points: list[tuple[simulate.Floats, simulate.Labels]] | None = None,
        boxes: npt.NDArray[np.float32] | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """In float32: positions are sines of large numbers."""
        clicks = corners = None
        if points is not None:
            clicks = (
                torch.from_numpy(np.stack([at for at, _ in points])).to(self._device),
                torch.from_numpy(np.stack([label for _, label in points])).to(self._device),
            )
        if boxes is not None:
            corners = torch.stack([_corners(box, self._frame) for box in boxes]).to(self._device)
        return cast(
            tuple[Tensor, Tensor],
            self.model.prompt_encoder(points=clicks, boxes=corners, masks=masks),
        )

    def _answer(
        self, session: Session, embeddings: Tensor, sparse: Tensor, dense: Tensor
    ) -> Tensor:
        """The loss of the candidate that the model itself thinks best, at full size."""
        with self._mixed():
            # All of the decoder's stream in that precision: casting it for each product would take
            # a tenth of the step.
            logits, ious = decode(
                self.model.mask_decoder,
                embeddings=embeddings.to(self._dtype),
                positions=self._positions.to(self._dtype),
                sparse=sparse.to(self._dtype),
                dense=dense.to(self._dtype),
            )
        believed, best = ious[:, 1:].float().max(dim=1)
        chosen = logits[torch.arange(len(best), device=self._device), best + 1].float()
        full = self._enlarging @ chosen @ self._enlarging.t()
        session.prior = torch.sigmoid(chosen.detach())[:, None]
        session.answered = (full.detach() > 0).cpu().numpy()
        return losses.published(full, session.target, believed, over_batch=processes.add_up)

    def _descend(self, answers: Iterable[Tensor]) -> float:
        """One move of the optimiser, after the mean of the losses; that mean."""
        total = 0.0
        for loss in answers:
            part = loss / self.settings.accumulate
            total += float(part.detach())
            if not math.isfinite(total):  # before anything has moved
                raise NotFinite(f"the loss has become {total}")
            torch.autograd.backward(part)
        processes.average_gradients(self.learning.values())
        _move(self._optimiser)
        return processes.mean(total)

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        optimiser = self._of_large.get(parameter, self._optimiser)
        return cast(dict[str, Tensor], optimiser.state[parameter])

    def _mixed(self) -> torch.autocast:
        enabled = self._dtype == torch.bfloat16
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)


def learns(key: str, *, trainable: Trainable) -> bool:
    """Whether a weight is trained, and therefore kept in the state."""
    if key.startswith("mask_decoder."):
        return True
    if trainable == "decoder":
        return False
    if key.startswith("prompt_encoder."):
        # Random directions, which give positions their meaning for all weights behind them.
        return not key.endswith("positional_encoding_gaussian_matrix")
    return trainable == "everything" or ".Adapter." in key


@dataclass
class Session:
    """One image batch of a step with its masks: what the annotator sees and what was answered."""

    truth: npt.NDArray[np.bool_]  # (N, size, size)
    target: Tensor  # the same as numbers
    by: list[np.random.Generator]  # of each image
    masks: int  # of each image
    embeddings: Tensor | None = None  # (N, 256, tokens, tokens), detached
    answered: npt.NDArray[np.bool_] | None = None  # the last answer as a mask, (N, size, size)
    prior: Tensor | None = None  # the same as probabilities, (N, 1, size / 4, size / 4)

    def last_answer(self) -> npt.NDArray[np.bool_]:
        """Of the step's first answer at the latest."""
        assert self.answered is not None, "nothing has been asked yet"
        return self.answered

    def rows(self) -> Iterator[tuple[int, npt.NDArray[np.bool_], np.random.Generator]]:
        """Each mask with its number and the chance of its image."""
        for number, mask in enumerate(self.truth):
            yield number, mask, self.by[number // self.masks]


def _corners(box: simulate.Floats, frame: Frame) -> Tensor:
    """A box in pixels of the frame -> (4,) as the model's prompt encoder has them."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return frame.box(Box(x0=x0, y0=y0, x1=x1, y1=y1), height=frame.size, width=frame.size)


def _dice(answers: simulate.Mask, truth: simulate.Mask) -> npt.NDArray[np.float64]:
    """Per mask, (N,), of (N, rows, columns); no mask of ``truth`` is empty."""
    overlap = (answers & truth).sum((1, 2))
    dice: npt.NDArray[np.float64] = 2 * overlap / (answers.sum((1, 2)) + truth.sum((1, 2)))
    return dice


def _adam(parameters: list[nn.Parameter]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, fused=True)  # the rate is every step's


def _move(optimiser: torch.optim.Optimizer) -> None:
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _enlarging(small: int, large: int) -> Tensor:
    """(large, small): bilinear interpolation of one axis, as torch's own.

    Both axes as products take a third of the time of torch's, and learn faster still.
    """
    unit = torch.eye(small)[:, None]  # (small, 1, small)
    return functional.interpolate(unit, large, mode="linear", align_corners=False)[:, 0].t()
