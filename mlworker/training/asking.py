"""Asking a model for the masks of one image, in each way that an evaluation knows.

``box``           the box around the mask
``box-jittered``  the same with each side moved on its own by up to a tenth of the box
``1-point`` …     a point anywhere in the mask; then, as published, points anywhere in what is still
                  wrong, each time with the last answer's probabilities as mask prompt. Where a file
                  gives enough points for a mask, those are asked with at once instead
``clicks``        the innermost pixel of the largest region that is wrong, again and again, likewise
                  with the last answer: what a patient user would do (arXiv 2102.06583)

An image is encoded once, and all its masks are decoded together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlworker.contract.masks import dice
from mlworker.contract.messages import Box, Point
from mlworker.inference.encoder import Encoding
from mlworker.inference.geometry import Rgb
from mlworker.inference.predictor import Prediction, Prompt
from mlworker.training.prompts import Prompts, error_point, worst_point

Mask = npt.NDArray[np.bool_]

BOXES: Final = ("box", "box-jittered")
POINTS: Final[Mapping[str, int]] = {"1-point": 1, "3-points": 3, "5-points": 5}
CLICKS: Final = "clicks"
PROTOCOLS: Final = (*BOXES, *POINTS, CLICKS)
# An image smaller than the model's square on both sides: stretched, as the published predictor does
# and as we serve; or padded, as the published training and evaluation do.
Small = Literal["stretched", "padded"]
_PADDING: Final = (124, 116, 104)  # SAM's mean colour, which is zero to the model
_PIXELS_AT_ONCE: Final = 2**27  # of masks that are decoded together


class Decoding(Protocol):
    """What is asked of a Predictor."""

    def predict_many(
        self, embedding: Tensor, *, height: int, width: int, prompts: Sequence[Prompt]
    ) -> list[Prediction]:
        """One prediction for each prompt, in their order."""
        ...


@dataclass(frozen=True)
class Model:
    """What is evaluated; the parts are the ones that serve."""

    name: str
    encoding: Encoding
    predictor: Decoding


@dataclass(frozen=True)
class Target:
    """A mask of the image that is asked for; ``by`` draws the points of its own."""

    truth: Mask
    prompts: Prompts
    by: np.random.Generator


@dataclass(frozen=True)
class Answer:
    """To a protocol, for one target (by number): the last prediction, and what it was asked with.

    ``dice_after`` each click, where clicks are the protocol.
    """

    protocol: str
    target: int
    asked: Prompt
    predicted: Mask
    predicted_iou: float | None  # of a model
    dice_after: tuple[float, ...] = ()


@dataclass
class Speed:
    """What was done with a model, and the seconds that it took."""

    images: int = 0
    masks: int = 0
    prompts: int = 0
    encode_s: float = 0.0  # with preparation
    decode_s: float = 0.0  # to masks of the image's size
    total_s: float = 0.0  # with reading, rivals and measuring


def answers(
    session: Session, targets: Sequence[Target], *, protocols: Sequence[str], clicks: int
) -> Iterator[Answer]:
    """Ask for all targets in all ways; each answer is ready to be measured and dropped."""
    for protocol in protocols:
        if protocol in BOXES:
            yield from _by_box(session, targets, protocol)
    yield from _by_points(session, targets, {p: POINTS[p] for p in protocols if p in POINTS})
    if CLICKS in protocols:
        yield from _by_clicks(session, targets, clicks)


@dataclass
class Session:
    """A model that has seen one image."""

    model: Model
    rgb: Rgb
    small: Small = "stretched"
    speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        began = time.perf_counter()
        self._height, self._width = self.rgb.shape[:2]
        size = self.model.encoding.frame.size
        self._left, self._top = 0, 0
        seen = self.rgb
        if self.small == "padded" and self._height < size and self._width < size:
            self._left, self._top = (size - self._width) // 2, (size - self._height) // 2
            seen = np.full((size, size, 3), _PADDING, np.uint8)
            seen[self._top :, self._left :][: self._height, : self._width] = self.rgb
        self._seen_height, self._seen_width = seen.shape[:2]
        (embedding,) = self.model.encoding.encode([seen])
        self._embedding = torch.from_numpy(embedding).float()
        self.speed.images += 1
        self.speed.encode_s += time.perf_counter() - began

    def ask(self, asked: Sequence[Prompt]) -> list[Prediction]:
        """One prediction for each, in as few passes as memory allows."""
        began = time.perf_counter()
        most = max(1, _PIXELS_AT_ONCE // (self._seen_height * self._seen_width))
        found = [
            self._in_slice(prediction)
            for start in range(0, len(asked), most)
            for prediction in self.model.predictor.predict_many(
                self._embedding,
                height=self._seen_height,
                width=self._seen_width,
                prompts=[self._moved(prompt) for prompt in asked[start : start + most]],
            )
        ]
        self.speed.prompts += len(asked)
        self.speed.decode_s += time.perf_counter() - began
        return found

    def _moved(self, prompt: Prompt) -> Prompt:
        if not (self._left or self._top):
            return prompt
        return replace(
            prompt,
            points=tuple(self._moved_point(point) for point in prompt.points),
            box=None if prompt.box is None else self._moved_box(prompt.box),
        )

    def _moved_point(self, point: Point) -> Point:
        return Point(x=point.x + self._left, y=point.y + self._top, positive=point.positive)

    def _moved_box(self, box: Box) -> Box:
        x, y = self._left, self._top
        return Box(x0=box.x0 + x, y0=box.y0 + y, x1=box.x1 + x, y1=box.y1 + y)

    def _in_slice(self, prediction: Prediction) -> Prediction:
        rows = slice(self._top, self._top + self._height)
        columns = slice(self._left, self._left + self._width)
        mask = prediction.mask[rows, columns]
        return Prediction(mask, prediction.predicted_iou, prediction.low_res_logits)


def _by_box(session: Session, targets: Sequence[Target], protocol: str) -> Iterator[Answer]:
    asked = [Prompt(box=box) for box in box_prompts(targets, protocol=protocol)]
    for number, (each, found) in enumerate(zip(asked, session.ask(asked), strict=True)):
        yield Answer(protocol, number, each, found.mask, found.predicted_iou)


def box_prompts(targets: Sequence[Target], *, protocol: str) -> list[Box]:
    """What one of the box protocols asks with."""
    given = [
        target.prompts.jittered_box if protocol == "box-jittered" else target.prompts.box
        for target in targets
    ]
    assert all(given), "a target has the prompts of its protocols"
    return [box for box in given if box]


def _by_points(
    session: Session, targets: Sequence[Target], counts: Mapping[str, int]
) -> Iterator[Answer]:
    """Points at once where enough are given, else one after another from the first."""
    most = max(counts.values(), default=0)
    chained: dict[str, list[int]] = {}
    for protocol, count in counts.items():
        given = [
            number
            for number, target in enumerate(targets)
            # One point is also how a chain begins.
            if len(target.prompts.points) >= (most if count == 1 else count)
        ]
        at_once = [Prompt(points=targets[n].prompts.points[:count]) for n in given]
        for number, each, found in zip(given, at_once, session.ask(at_once), strict=True):
            yield Answer(protocol, number, each, found.mask, found.predicted_iou)
        chained[protocol] = [n for n in range(len(targets)) if n not in given]
    numbers = sorted({n for each in chained.values() for n in each})
    if not numbers:
        return
    steps = _chain(
        session,
        [targets[n] for n in numbers],
        first=[targets[n].prompts.points[0] for n in numbers],
        choose=lambda target, predicted: error_point(predicted, target.truth, by=target.by),
    )
    for count, step in zip(range(1, most + 1), steps, strict=False):
        for protocol in (p for p, of in counts.items() if of == count):
            for number, (asked, found) in zip(numbers, step, strict=True):
                if number in chained[protocol]:
                    yield Answer(protocol, number, asked, found.mask, found.predicted_iou)


def _by_clicks(session: Session, targets: Sequence[Target], clicks: int) -> Iterator[Answer]:
    first = [worst_point(np.zeros_like(target.truth), target.truth) for target in targets]
    assert all(first), "a target has a mask"
    steps = _chain(
        session,
        targets,
        first=[point for point in first if point],
        choose=lambda target, predicted: worst_point(predicted, target.truth),
    )
    after: list[list[float]] = [[] for _ in targets]
    last: list[tuple[Prompt, Prediction]] = []
    for _, step in zip(range(clicks), steps, strict=False):
        last = step
        for number, (_, found) in enumerate(step):
            after[number].append(dice(found.mask, targets[number].truth))
    for number, (asked, found) in enumerate(last):
        yield Answer(CLICKS, number, asked, found.mask, found.predicted_iou, tuple(after[number]))


def _chain(
    session: Session,
    targets: Sequence[Target],
    *,
    first: Sequence[Point],
    choose: Callable[[Target, Mask], Point | None],
) -> Iterator[list[tuple[Prompt, Prediction]]]:
    """One more point at a time, for ever; who has nothing wrong any more keeps the answer."""
    asked = [Prompt(points=(point,)) for point in first]
    found = session.ask(asked)
    while True:
        yield list(zip(asked, found, strict=True))
        again: list[int] = []
        for number, target in enumerate(targets):
            point = choose(target, found[number].mask)
            if point is None:
                continue
            again.append(number)
            asked[number] = Prompt(
                points=(*asked[number].points, point),
                mask_prompt=torch.sigmoid(found[number].low_res_logits),
            )
        answers = session.ask([asked[number] for number in again])
        for number, answer in zip(again, answers, strict=True):
            found[number] = answer
