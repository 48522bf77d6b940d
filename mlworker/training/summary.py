"""From one row per mask to figures: means with bootstrap intervals, clicks needed, differences.

Intervals are percentile bootstraps (95 %). What is resampled are subjects, because slices of one
patient, and masks of one slice, are wrong together; where a subject is not known its image stands
for it. Of a single subject there is no interval.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from mlworker.training.asking import CLICKS
from mlworker.training.evaluate import Row
from mlworker.training.metrics import Scores, iou_of
from mlworker.training.samples import UNKNOWN

MEASURES: Final = tuple(field.name for field in fields(Scores))
RESAMPLES: Final = 2000
INTERVAL: Final = (2.5, 97.5)  # percentiles
TARGETS: Final = (0.80, 0.85, 0.90)
LEAST_MASKS: Final = 5  # of a collection that is in the mean over collections, if any has so many
_AT_ONCE: Final = 2**22  # numbers of a resampling in memory together

# Over all masks; over the means of all collections, so that a large one does not speak for all, nor
# one of a few masks as much as the others; and over the masks of each group.
By = Literal["masks", "collections", "collection", "modality", "label"]
GROUPS: Final[tuple[By, ...]] = ("collection", "modality", "label")

Floats = npt.NDArray[np.float64]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % interval, which one subject has not."""

    mean: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Figure:
    """What one model reached with one protocol, in one group of masks."""

    model: str
    protocol: str
    by: By
    group: str  # "all" where ``by`` is masks or collections
    masks: int
    subjects: int
    measures: dict[str, Mean]  # of MEASURES


@dataclass(frozen=True)
class Clicks:
    """What one model needed: NoC, and Dice after each click, in one group of masks.

    NoC@85 is the mean number of clicks to an IoU of 0.85, as in the literature, and ``to_dice`` the
    same to a Dice; who never arrives counts as the most clicks that were made. ``never`` is their
    share, by IoU.
    """

    model: str
    by: By
    group: str
    masks: int
    most: int
    to_iou: dict[str, Mean]  # "80", "85", "90"
    to_dice: dict[str, Mean]
    never: dict[str, float]
    dice_after: list[Mean]


@dataclass(frozen=True)
class Difference:
    """Mean Dice of a model less that of the first one, on the same masks."""

    model: str
    than: str
    protocol: str
    masks: int
    dice: Mean


@dataclass(frozen=True)
class Summary:
    """All figures of an evaluation."""

    figures: list[Figure]
    clicks: list[Clicks]
    differences: list[Difference]


def summarise(rows: Sequence[Row], *, seed: int, apart: Sequence[str] = ()) -> Summary:
    """All figures; ``seed`` is of the resampling.

    Labels that stand ``apart`` are in the figures by label, and in no mean with others.
    """
    together = [row for row in rows if row.label not in apart]
    return Summary(
        figures=figures(rows, seed=seed, apart=apart),
        clicks=clicks(rows, seed=seed, apart=apart),
        differences=differences(together, seed=seed),
    )


def figures(rows: Iterable[Row], *, seed: int, apart: Sequence[str] = ()) -> list[Figure]:
    """Means of all measures, per model and protocol: over everything, and by group."""
    found = []
    for (model, protocol), own in _grouped(rows, lambda row: (row.model, row.protocol)).items():
        for by, group, part in _parts(own, apart=apart):
            values = np.array([astuple(row.scores) for row in part])
            found.append(
                Figure(
                    model=model,
                    protocol=protocol,
                    by=by,
                    group=group,
                    masks=len(part),
                    subjects=len({_subject(row) for row in part}),
                    measures=dict(
                        zip(MEASURES, _means(part, values, by=by, seed=seed), strict=True)
                    ),
                )
            )
    return found


def clicks(rows: Iterable[Row], *, seed: int, apart: Sequence[str] = ()) -> list[Clicks]:
    """What the models needed, where clicks were a protocol; over all masks, and by group."""
    found = []
    clicked = [row for row in rows if row.protocol == CLICKS]
    for model, own in _grouped(clicked, lambda row: row.model).items():
        for by, group, part in _parts(own, apart=apart):
            after = np.array([row.dice_after for row in part])  # (masks, clicks)
            as_iou = iou_of(after)
            found.append(
                Clicks(
                    model=model,
                    by=by,
                    group=group,
                    masks=len(part),
                    most=after.shape[1],
                    to_iou=_needed(part, as_iou, by=by, seed=seed),
                    to_dice=_needed(part, after, by=by, seed=seed),
                    never={_name(t): float(np.mean((as_iou < t).all(axis=1))) for t in TARGETS},
                    dice_after=_means(part, after, by=by, seed=seed),
                )
            )
    return found


def differences(rows: Iterable[Row], *, seed: int) -> list[Difference]:
    """Each model, rivals included, against the first one: paired, mask by mask."""
    found = []
    by_protocol = _grouped(rows, lambda row: row.protocol)
    for protocol, own in by_protocol.items():
        by_model = _grouped(own, lambda row: row.model)
        first, *others = by_model
        than = {row.mask: row.scores.dice for row in by_model[first]}
        for model in others:
            part = [row for row in by_model[model] if row.mask in than]
            values = np.array([[row.scores.dice - than[row.mask]] for row in part])
            if part:
                (mean,) = _means(part, values, by="masks", seed=seed)
                found.append(Difference(model, first, protocol, len(part), mean))
    return found


def _parts(rows: Sequence[Row], *, apart: Sequence[str]) -> Iterable[tuple[By, str, Sequence[Row]]]:
    together = [row for row in rows if row.label not in apart]
    if together:
        yield "masks", "all", together
        many = Counter(row.collection for row in together)
        large = [row for row in together if many[row.collection] >= LEAST_MASKS]
        yield "collections", "all", large or together
    for by in GROUPS:
        groups = _grouped(rows if by == "label" else together, attrgetter(by))
        for group in sorted(groups):
            yield by, group, groups[group]


def _needed(rows: Sequence[Row], reached: Floats, *, by: By, seed: int) -> dict[str, Mean]:
    """Clicks to each target; ``reached`` (masks, clicks)."""
    arrived = np.stack([reached >= target for target in TARGETS], axis=2)
    count = np.where(arrived.any(axis=1), arrived.argmax(axis=1) + 1, reached.shape[1])
    means = _means(rows, count.astype(np.float64), by=by, seed=seed)
    return {_name(target): mean for target, mean in zip(TARGETS, means, strict=True)}


def _means(rows: Sequence[Row], values: Floats, *, by: By, seed: int) -> list[Mean]:
    """Of each column of ``values`` (masks, columns)."""
    strata = _numbered(row.collection if by == "collections" else "" for row in rows)
    clusters = _numbered(_subject(row) for row in rows)
    shape = (strata.max() + 1, clusters.max() + 1)
    counts = np.zeros(shape)
    np.add.at(counts, (strata, clusters), 1)
    sums = np.zeros((*shape, values.shape[1]))
    np.add.at(sums, (strata, clusters), values)
    means = (sums.sum(axis=1) / counts.sum(axis=1, keepdims=True)).mean(axis=0)
    if shape[1] < 2:
        return [Mean(float(mean)) for mean in means]
    low, high = np.percentile(_resampled(counts, sums, seed=seed), INTERVAL, axis=0)
    return [Mean(*(float(v) for v in each)) for each in zip(means, low, high, strict=True)]


def _resampled(counts: Floats, sums: Floats, *, seed: int) -> Floats:
    """Means of many draws of as many subjects, with replacement: (RESAMPLES, columns).

    A draw without any subject of a collection is a mean over the others.
    """
    by = np.random.default_rng(seed)
    subjects = counts.shape[1]
    chance = np.full(subjects, 1 / subjects)
    drawn = []
    most = max(1, _AT_ONCE // subjects)
    for start in range(0, RESAMPLES, most):
        times = by.multinomial(subjects, chance, size=min(most, RESAMPLES - start)).astype(float)
        of = times @ counts.T  # (draws, strata)
        total = np.einsum("ds,tsc->dtc", times, sums, optimize=True)
        means = total / np.maximum(of, 1)[:, :, None]
        drawn.append(means.sum(axis=1) / (of > 0).sum(axis=1)[:, None])
    return np.concatenate(drawn)


def _subject(row: Row) -> tuple[str, str]:
    known = row.subject != UNKNOWN
    return (row.collection if known else UNKNOWN, row.subject if known else row.image)


def _numbered(values: Iterable[object]) -> npt.NDArray[np.intp]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> Mapping[Key, list[Row]]:
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _name(target: float) -> str:
    return f"{target * 100:.0f}"
