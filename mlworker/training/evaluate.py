"""How good a model is on masks that it has not learnt.

Images are streamed: each is read and encoded once, asked for all its masks in all ways (asking.py),
measured (metrics.py) and dropped. What cannot be evaluated is left out and listed with the name of
its error, so that a figure says of how many masks it is.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from mlworker.inference.geometry import Rgb
from mlworker.inference.predictor import Prompt
from mlworker.training.asking import (
    BOXES,
    POINTS,
    PROTOCOLS,
    Answer,
    Model,
    Session,
    Small,
    Speed,
    Target,
    answers,
    box_prompts,
)
from mlworker.training.metrics import PIXELS, TOLERANCE, Mask, Scores, Spacing, score
from mlworker.training.pictures import read_image, read_mask
from mlworker.training.prompts import (
    PromptFile,
    PromptMissing,
    Prompts,
    mask_name,
    randomness_of,
    sample_prompts,
)
from mlworker.training.rivals import RIVALS
from mlworker.training.samples import DataError, Sample, by_image

MOST_CLICKS: Final = 20  # as is usual; nobody clicks longer on one structure
WORST_KEPT: Final = 12
_PIXELS_AT_ONCE: Final = 2**28  # of one image's masks, in memory together


class NothingToEvaluate(DataError):
    """Every single mask was left out."""


@dataclass(frozen=True)
class Plan:
    """How an evaluation is done; the same plan on the same masks gives the same figures."""

    protocols: tuple[str, ...] = PROTOCOLS
    rivals: tuple[str, ...] = ()  # names of RIVALS, asked with the same boxes
    clicks: int = MOST_CLICKS
    seed: int = 0  # of what is sampled
    tolerance: float = TOLERANCE  # of surface Dice
    apart: tuple[str, ...] = ()  # labels that count for themselves alone, such as vessels
    small: Small = "stretched"

    def __post_init__(self) -> None:
        unknown = sorted({*self.protocols} - {*PROTOCOLS}) + sorted({*self.rivals} - {*RIVALS})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not one of {', '.join((*PROTOCOLS, *RIVALS))}")
        if not self.protocols or self.clicks < 1:
            raise ValueError("an evaluation needs a protocol, and at least one click")


@dataclass(frozen=True)
class Row:
    """One mask, asked for in one way."""

    model: str
    protocol: str
    mask: str
    image: str
    label: str
    modality: str
    collection: str
    subject: str
    scores: Scores
    predicted_iou: float | None = None  # a rival has no opinion of itself
    dice_after: tuple[float, ...] = ()  # each click


@dataclass(frozen=True)
class Excluded:
    """A mask that was not evaluated, and why: the name of the error, and its sentence."""

    mask: str
    error: str
    reason: str


@dataclass(frozen=True)
class Case:
    """An answer, kept for a picture of it."""

    row: Row
    sample: Sample
    asked: Prompt
    shape: tuple[int, int]
    bits: npt.NDArray[np.uint8]  # of the answer, packed row by row

    def mask(self) -> Mask:
        """(rows, columns) bool."""
        bits = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1])
        return bits.reshape(self.shape).astype(bool)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; summary.py draws the figures from the rows."""

    rows: list[Row] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    worst: dict[str, list[Case]] = field(default_factory=dict)  # by model, the worst first
    speed: dict[str, Speed] = field(default_factory=dict)  # by model
    prompts: dict[str, Prompts] = field(default_factory=dict)  # by mask


def evaluate(
    model: Model,
    samples: Sequence[Sample],
    *,
    plan: Plan = Plan(),
    prompts: PromptFile | None = None,
    root: Path | None = None,
    spacing: Callable[[Sample], Spacing] = lambda sample: PIXELS,
    worst: int = WORST_KEPT,
    progress: Callable[[int, int], None] = lambda done, of: None,
    seen: Callable[[Row, Mask], object] = lambda row, predicted: None,
) -> Evaluation:
    """Evaluate a model on masks; reads their files, and writes nothing.

    Prompts are sampled with the plan's seed where ``prompts`` does not give them. ``root`` is the
    folder that names are relative to, ``spacing`` a pixel's size in millimetres, x and y.
    ``progress`` is told of images, ``seen`` is shown each of the model's answers. Raises
    NothingToEvaluate.
    """
    began = time.perf_counter()
    done = Evaluation(speed={model.name: Speed()})
    kept = _Worst(worst, protocol=plan.protocols[0])
    images = by_image(samples)
    for number, (path, group) in enumerate(images.items(), start=1):
        for scene in _scenes(model, path, group, plan=plan, prompts=prompts, root=root, done=done):
            for item, answer in _answered(scene, plan=plan):
                row = _row(item, answer, model=model.name, plan=plan, spacing=spacing, root=root)
                done.rows.append(row)
                seen(row, answer.predicted)
                kept.offer(row, item.sample, answer)
            for rival in plan.rivals:
                for item, answer in _rivalled(rival, scene, plan=plan):
                    row = _row(item, answer, model=rival, plan=plan, spacing=spacing, root=root)
                    done.rows.append(row)
        progress(number, len(images))
    if not done.rows:
        reasons = "; ".join(excluded.reason for excluded in done.excluded[:3])
        raise NothingToEvaluate(f"none of {len(samples)} masks can be evaluated: {reasons}")
    done.worst[model.name] = kept.cases()
    done.speed[model.name].total_s = time.perf_counter() - began
    return done


def side_by_side(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several models' evaluations on the same masks as one."""
    together = Evaluation()
    for each in evaluations:
        together.rows.extend(each.rows)
        together.excluded.extend(e for e in each.excluded if e not in together.excluded)
        together.worst.update(each.worst)
        together.speed.update(each.speed)
        together.prompts.update(each.prompts)
    return together


@dataclass(frozen=True)
class _Item:
    sample: Sample
    name: str
    target: Target


@dataclass(frozen=True)
class _Scene:
    """An image that the model has seen, with those of its masks that fit into memory."""

    session: Session
    items: list[_Item]


def _scenes(
    model: Model,
    path: Path,
    group: Sequence[Sample],
    *,
    plan: Plan,
    prompts: PromptFile | None,
    root: Path | None,
    done: Evaluation,
) -> Iterator[_Scene]:
    """What can be asked for of one image; the rest is told to ``done``."""

    def leave_out(samples: Sequence[Sample], error: DataError) -> None:
        done.excluded.extend(
            Excluded(mask_name(sample, root=root), type(error).__name__, str(error))
            for sample in samples
        )

    try:
        rgb = read_image(path, window=group[0].window)
    except DataError as error:
        leave_out(group, error)
        return
    session: Session | None = None
    most = max(1, _PIXELS_AT_ONCE // (rgb.shape[0] * rgb.shape[1]))
    for start in range(0, len(group), most):
        items = []
        for sample in group[start : start + most]:
            try:
                target = _target(sample, rgb, plan=plan, prompts=prompts)
            except DataError as error:
                leave_out([sample], error)
                continue
            items.append(_Item(sample, mask_name(sample, root=root), target))
            done.prompts[items[-1].name] = target.prompts
        if items:
            speed = done.speed[model.name]
            speed.masks += len(items)
            session = session or Session(model, rgb, small=plan.small, speed=speed)
            yield _Scene(session, items)


def _target(sample: Sample, rgb: Rgb, *, plan: Plan, prompts: PromptFile | None) -> Target:
    truth = read_mask(sample.mask, image=rgb)
    by = randomness_of(sample, seed=plan.seed)
    used = sample_prompts(truth, by=by)
    if prompts is not None:
        given = prompts.of(sample, height=truth.shape[0], width=truth.shape[1])
        asks_with_box = "box" in plan.protocols
        asks_with_points = any(protocol in POINTS for protocol in plan.protocols)
        if (asks_with_box and given.box is None) or (asks_with_points and not given.points):
            raise PromptMissing(f"the prompts of {sample.mask.name} lack its box or its points")
        used = Prompts(given.box, given.jittered_box or used.jittered_box, given.points)
    return Target(truth, used, by)


def _answered(scene: _Scene, *, plan: Plan) -> Iterator[tuple[_Item, Answer]]:
    targets = [item.target for item in scene.items]
    for answer in answers(scene.session, targets, protocols=plan.protocols, clicks=plan.clicks):
        yield scene.items[answer.target], answer


def _rivalled(rival: str, scene: _Scene, *, plan: Plan) -> Iterator[tuple[_Item, Answer]]:
    targets = [item.target for item in scene.items]
    for protocol in (p for p in plan.protocols if p in BOXES):
        for number, box in enumerate(box_prompts(targets, protocol=protocol)):
            mask = RIVALS[rival](scene.session.rgb, box)
            yield scene.items[number], Answer(protocol, number, Prompt(box=box), mask, None)


def _row(
    item: _Item,
    answer: Answer,
    *,
    model: str,
    plan: Plan,
    spacing: Callable[[Sample], Spacing],
    root: Path | None,
) -> Row:
    sample = item.sample
    image = sample.image
    return Row(
        model=model,
        protocol=answer.protocol,
        mask=item.name,
        image=(
            image.relative_to(root) if root and image.is_relative_to(root) else image
        ).as_posix(),
        label=sample.label,
        modality=sample.modality,
        collection=sample.collection,
        subject=sample.subject,
        scores=score(
            answer.predicted,
            item.target.truth,
            spacing=spacing(sample),
            tolerance=plan.tolerance,
        ),
        predicted_iou=answer.predicted_iou,
        dice_after=answer.dice_after,
    )


class _Worst:
    """The worst answers to one protocol; the others are dropped as they come.

    Of one label at most a quarter, as long as there are others: one hard label would be all.
    """

    def __init__(self, most: int, *, protocol: str) -> None:
        self._most = most
        self._protocol = protocol
        # By label; the best of the worst on top.
        self._heaps: dict[str, list[tuple[float, int, Case]]] = {}
        self._offered = 0

    def offer(self, row: Row, sample: Sample, answer: Answer) -> None:
        if row.protocol != self._protocol or self._most < 1:
            return
        self._offered += 1
        key = -row.scores.dice
        heap = self._heaps.setdefault(row.label, [])
        if len(heap) == self._most and key <= heap[0][0]:
            return
        rows, columns = answer.predicted.shape
        bits = np.packbits(answer.predicted)
        case = Case(row, sample, answer.asked, (rows, columns), bits)
        heapq.heappush(heap, (key, -self._offered, case))
        if len(heap) > self._most:
            heapq.heappop(heap)

    def cases(self) -> list[Case]:
        share = max(1, self._most // 4)
        first, rest = [], []
        for heap in self._heaps.values():
            own = sorted(heap, key=lambda kept: kept[:2], reverse=True)
            first += own[:share]
            rest += own[share:]
        by_dice = [sorted(kept, key=lambda k: k[:2], reverse=True) for kept in (first, rest)]
        chosen = (by_dice[0] + by_dice[1])[: self._most]
        return [case for _, _, case in sorted(chosen, key=lambda k: k[:2], reverse=True)]
