"""What to annotate next: an order of slices, by what a model thinks of them and what is known.

One rule for the server and for the simulation that compares the strategies. A strategy is a
function of the pool and an entry of ``_STRATEGIES``. Distances are Euclidean, between features: an
embedding's mean over its places.

``random``       no order, against which the others are judged
``uncertainty``  where the model is least sure: the mean of three ranks, of what it expects of its
                 answer, of how much its three answers differ, and of what a moved click changes
``diversity``    what is farthest from all that is annotated or chosen (greedy k-centre, as core-set
                 selection has it, arXiv 1708.00489)
``rare_labels``  what lies near annotated slices with labels that few masks have; what is chosen
                 counts as if it had them already
``mix``          diversity among the most uncertain

Equal candidates are drawn by the seed, whichever order they come in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Strategy = Literal["random", "uncertainty", "diversity", "rare_labels", "mix"]
Features = npt.NDArray[np.float32]  # (d,)
Floats = npt.NDArray[np.float64]

FEATURES: Final = 256  # of a slice
_NEIGHBOURS: Final = 5  # annotated slices that say what a candidate may show
_MIXED: Final = 3  # times as many of the most uncertain, among which ``mix`` chooses
_ROWS_AT_ONCE: Final = 1024  # of a matrix of distances, which 20,000 by 10,000 would not fit


@dataclass(frozen=True, eq=False)
class Candidate:
    """A slice that nobody has annotated, and what a model thinks of it (SliceScore)."""

    id: str
    features: Features
    predicted_iou: float = 0.0
    disagreement: float = 0.0
    instability: float = 0.0


@dataclass(frozen=True, eq=False)
class Annotated:
    """A slice with accepted masks, one for each label."""

    features: Features
    labels: frozenset[str]


@dataclass(frozen=True)
class Choice:
    """A candidate that is worth annotating; ``reason`` is for who is to do it.

    ``score`` compares the choices of one ranking, and no others.
    """

    id: str
    score: float
    reason: str


def rank(
    strategy: Strategy,
    candidates: Sequence[Candidate],
    annotated: Sequence[Annotated],
    *,
    count: int,
    seed: int,
) -> list[Choice]:
    """The ``count`` candidates to annotate next, or all where there are fewer, the first first."""
    drawn = np.random.default_rng(seed).permutation(len(candidates))
    known = sorted(candidates, key=lambda candidate: candidate.id)
    pool = _Pool([known[i] for i in drawn], annotated, min(count, len(candidates)))
    if not pool.count:
        return []
    return [
        Choice(pool.candidates[index].id, float(score), reason)
        for index, score, reason in _STRATEGIES[strategy](pool)
    ]


def pack_features(features: Features) -> str:
    """As a SliceScore carries them."""
    return base64.b64encode(features.astype("<f2").tobytes()).decode()


def unpack_features(text: str) -> Features:
    """The inverse; raises ValueError for anything but 256 finite numbers."""
    return features_of(base64.b64decode(text, validate=True))


def features_of(data: bytes) -> Features:
    """The same without base64, as the server keeps them."""
    features = np.frombuffer(data, "<f2").astype(np.float32)
    if features.shape != (FEATURES,) or not np.isfinite(features).all():
        raise ValueError(f"{features.size} numbers, not {FEATURES} finite ones, are no features")
    return features


@dataclass(frozen=True, eq=False)
class _Pool:
    candidates: list[Candidate]  # drawn by the seed: the first of equals is taken
    annotated: Sequence[Annotated]
    count: int

    @cached_property
    def features(self) -> Features:
        """(candidates, d)"""
        return np.stack([candidate.features for candidate in self.candidates]).astype(np.float32)

    @cached_property
    def known(self) -> Features:
        """(annotated, d)"""
        empty = np.zeros((0, self.features.shape[1]), np.float32)
        return np.stack([each.features for each in self.annotated]) if self.annotated else empty


_Picks = Iterator[tuple[int, float, str]]  # a candidate's index, its score, the reason


def _at_random(pool: _Pool) -> _Picks:
    for index in range(pool.count):
        yield index, 0.0, "Drawn at random"


def _by_uncertainty(pool: _Pool) -> _Picks:
    doubts = _doubts(pool)
    scores = doubts.mean(0)
    for index in np.argsort(-scores, kind="stable")[: pool.count]:
        yield int(index), scores[index], _why_uncertain(pool.candidates[index], doubts[:, index])


def _by_diversity(pool: _Pool) -> _Picks:
    for index, distance in _k_centre(pool, np.arange(len(pool.candidates))):
        yield index, distance, _why_different(pool, distance)


def _by_rare_labels(pool: _Pool) -> _Picks:
    labels = sorted({label for each in pool.annotated for label in each.labels})
    if not labels:
        for index in range(pool.count):
            yield index, 0.0, "Drawn at random: no label has been annotated yet"
        return
    has = np.array([[label in each.labels for label in labels] for each in pool.annotated], float)
    accepted = has.sum(0)
    # (candidates, labels): the share of the nearest annotated slices that have the label.
    likely = _near(pool, has)
    masks, left = accepted.copy(), np.ones(len(likely), bool)
    for _ in range(pool.count):
        scores = np.where(left, likely @ (1 / masks), -np.inf)
        index = int(scores.argmax())
        left[index] = False
        rarest = int((likely[index] / masks).argmax())
        masks += likely[index]
        yield index, scores[index], _why_rare(labels[rarest], int(accepted[rarest]))


def _by_both(pool: _Pool) -> _Picks:
    doubts = _doubts(pool)
    among = np.argsort(-doubts.mean(0), kind="stable")[: _MIXED * pool.count]
    for index, distance in _k_centre(pool, among):
        uncertain = _why_uncertain(pool.candidates[index], doubts[:, index])
        different = _why_different(pool, distance)
        yield index, distance, f"{uncertain}. {different}"


_STRATEGIES: Final[Mapping[Strategy, Callable[[_Pool], _Picks]]] = {
    "random": _at_random,
    "uncertainty": _by_uncertainty,
    "diversity": _by_diversity,
    "rare_labels": _by_rare_labels,
    "mix": _by_both,
}
STRATEGIES: Final = tuple(_STRATEGIES)
# Those that look at what a model thinks, not at features alone.
ASK_THE_MODEL: Final = frozenset[Strategy]({"uncertainty", "mix"})


def _doubts(pool: _Pool) -> Floats:
    """(3, candidates): each measure's rank, as a share of the pool; one is the most doubtful."""
    measured = [
        [-each.predicted_iou for each in pool.candidates],
        [each.disagreement for each in pool.candidates],
        [each.instability for each in pool.candidates],
    ]
    return np.array([_ranks(np.array(values)) for values in measured]) / len(pool.candidates)


def _ranks(values: Floats) -> Floats:
    """1 for the least, n for the most; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: Floats = (last - (counts - 1) / 2)[group]
    return shared


def _k_centre(pool: _Pool, among: npt.NDArray[np.intp]) -> Iterator[tuple[int, float]]:
    """The farthest from all that is annotated or chosen, again and again; index and distance."""
    features = pool.features[among]
    if len(pool.known):
        nearest = _to_nearest(features, pool.known)
        first = int(nearest.argmax())
    else:
        # Nothing to be far from: the most usual one, of which most can be learnt.
        nearest = np.full(len(features), np.inf)
        first = int(np.linalg.norm(features - features.mean(0), axis=1).argmin())
    for number in range(min(pool.count, len(among))):
        index = int(nearest.argmax()) if number else first
        yield int(among[index]), float(nearest[index]) if np.isfinite(nearest[index]) else 0.0
        nearest = np.minimum(nearest, np.linalg.norm(features - features[index], axis=1))
        nearest[index] = -np.inf


def _to_nearest(features: Features, known: Features) -> Floats:
    """(n,): each one's distance to the nearest of what is known."""
    parts = [squared.min(1) for squared in _squared_distances(features, known)]
    nearest: Floats = np.sqrt(np.maximum(np.concatenate(parts), 0)).astype(np.float64)
    return nearest


def _near(pool: _Pool, has: Floats) -> Floats:
    """(candidates, labels): the mean of ``has`` (annotated, labels) over the nearest annotated."""
    k = min(_NEIGHBOURS, len(pool.known))
    likely: Floats = np.concatenate(
        [
            has[np.argpartition(squared, k - 1, axis=1)[:, :k]].mean(1)
            for squared in _squared_distances(pool.features, pool.known)
        ]
    )
    return likely


def _squared_distances(features: Features, known: Features) -> Iterator[Features]:
    """Some rows of (n, annotated) at a time."""
    centre = known.mean(0)  # small numbers: their squares are subtracted from each other
    moved = known - centre
    lengths = (moved**2).sum(1)
    for start in range(0, len(features), _ROWS_AT_ONCE):
        rows = features[start : start + _ROWS_AT_ONCE] - centre
        yield (rows**2).sum(1)[:, None] + lengths - 2 * (rows @ moved.T)


def _why_uncertain(candidate: Candidate, doubts: Floats) -> str:
    reasons = (
        f"The model expects little of its own answer here (IoU {candidate.predicted_iou:.2f})",
        f"The model's three answers differ most here (overlap {1 - candidate.disagreement:.2f})",
        "The model's answer changes when a click moves a little"
        f" (overlap {1 - candidate.instability:.2f})",
    )
    # Of equal doubts, what the answers differ by says most.
    return reasons[max((1, 2, 0), key=lambda measure: doubts[measure])]


def _why_different(pool: _Pool, distance: float) -> str:
    if not pool.annotated:
        return "Unlike the others in this list" if distance else "Typical of what is there"
    return "Unlike anything annotated so far" if distance > 0 else "Like what is annotated already"


def _why_rare(label: str, accepted: int) -> str:
    masks = "1 mask is" if accepted == 1 else f"{accepted} masks are"
    return f"Probably shows {label}, of which only {masks} accepted"
