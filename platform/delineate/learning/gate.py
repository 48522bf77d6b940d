"""The gate: whether a candidate may take the place of the model that answers. Values only.

Both were asked for the same held-out masks with the same prompts. A mask's Dice is the mean of the
answers to its box and to one, three and five clicks, because people begin with either. What is
resampled are subjects, because masks of one patient are wrong together; differences are paired,
mask by mask (percentile bootstrap). Better is who gains over all masks at the project's confidence
while no label loses more than the tolerance in its mean. With too few subjects, or masks of a
label, nobody can say, and nothing is promoted by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mlworker.contract.learning import EvaluatedMask

LEAST_SUBJECTS: Final = 5
LEAST_MASKS: Final = 10  # of a label
RESAMPLES: Final = 4000
TARGETS: Final = (0.85, 0.90)  # of NoC, in IoU as in the literature
ALL: Final = "all"
CLICKS: Final = (1, 3, 5)

Floats = npt.NDArray[np.float64]


class LabelJudgement(BaseModel):
    """One label, or all: mean Dice, and mean clicks to an IoU (NoC)."""

    model_config = ConfigDict(frozen=True)

    label: str
    masks: int
    subjects: int
    opponent_dice: float
    candidate_dice: float
    difference: float
    low: float | None  # of the two-sided interval at the confidence; None: of a single subject
    high: float | None
    opponent_noc: dict[str, float]
    candidate_noc: dict[str, float]


class Judgement(BaseModel):
    """A verdict (models.Verdict's words) with its reasons."""

    model_config = ConfigDict(frozen=True)

    verdict: str
    sentence: str
    confidence: float  # of the intervals
    tolerance: float  # Dice that a label may lose
    labels: list[LabelJudgement]


@dataclass(frozen=True)
class _Pair:
    opponent: EvaluatedMask
    candidate: EvaluatedMask


def judge(
    rows: Sequence[EvaluatedMask],
    *,
    candidate: str,
    opponent: str,
    trained_on: frozenset[str],
    confidence: float,
    tolerance: float,
    seed: int = 0,
) -> Judgement:
    """The verdict on ``candidate`` against ``opponent``, by digest.

    ``trained_on``: subjects that the candidate has learnt from, itself or by its parents. With one
    of them among those who judge, the verdict is ``leaked``.
    """
    pairs = _paired(rows, candidate=candidate, opponent=opponent)
    labels = [_judged(ALL, pairs, confidence=confidence, seed=seed)] if pairs else []
    for label in sorted({pair.candidate.label for pair in pairs}):
        own = [pair for pair in pairs if pair.candidate.label == label]
        labels.append(_judged(label, own, confidence=confidence, seed=seed))
    verdict, sentence = _verdict(
        pairs, labels, trained_on=trained_on, confidence=confidence, tolerance=tolerance
    )
    return Judgement(
        verdict=verdict,
        sentence=sentence,
        confidence=confidence,
        tolerance=tolerance,
        labels=labels,
    )


def _verdict(
    pairs: Sequence[_Pair],
    labels: Sequence[LabelJudgement],
    *,
    trained_on: frozenset[str],
    confidence: float,
    tolerance: float,
) -> tuple[str, str]:
    leaked = sorted({pair.candidate.subject for pair in pairs} & trained_on)
    if leaked:
        return "leaked", (
            f"{len(leaked)} held-out subjects were learnt from ({leaked[0]}): the comparison says "
            "nothing."
        )
    if not labels:
        return "insufficient", "There is no held-out mask to judge by."
    overall, *each = labels
    if overall.subjects < LEAST_SUBJECTS:
        return "insufficient", (
            f"Insufficient evidence: {_count(overall.subjects, 'held-out subject')}, and "
            f"{LEAST_SUBJECTS} are needed."
        )
    few = [label for label in each if label.masks < LEAST_MASKS]
    if few:
        return "insufficient", (
            f"Insufficient evidence: {_count(few[0].masks, 'held-out mask')} of {few[0].label}, "
            f"and {LEAST_MASKS} are needed."
        )
    assert overall.low is not None, "there are several subjects"
    sure = f"{confidence:.0%} sure"
    lost = [label for label in each if label.difference < -tolerance]
    if overall.low <= 0:
        return "not_better", (
            f"Not better: {overall.difference:+.3f} Dice over all, and not {sure} to be a gain."
        )
    if lost:
        worst = min(lost, key=lambda label: label.difference)
        return "not_better", (
            f"Better over all ({overall.difference:+.3f} Dice), but {worst.label} loses "
            f"{-worst.difference:.3f}, and {tolerance:.3f} is allowed."
        )
    return "better", (
        f"Better: {overall.difference:+.3f} Dice over all ({sure}), and no label loses more than "
        f"{tolerance:.3f}."
    )


def _paired(rows: Sequence[EvaluatedMask], *, candidate: str, opponent: str) -> list[_Pair]:
    of = {
        digest: {row.revision_id: row for row in rows if row.model_digest == digest}
        for digest in (candidate, opponent)
    }
    both = of[candidate].keys() & of[opponent].keys()
    return [_Pair(of[opponent][one], of[candidate][one]) for one in sorted(both)]


def _judged(label: str, pairs: Sequence[_Pair], *, confidence: float, seed: int) -> LabelJudgement:
    ours = np.array([_dice(pair.candidate) for pair in pairs])
    theirs = np.array([_dice(pair.opponent) for pair in pairs])
    subjects = [pair.candidate.subject for pair in pairs]
    low, high = interval(ours - theirs, subjects, confidence=confidence, seed=seed)
    return LabelJudgement(
        label=label,
        masks=len(pairs),
        subjects=len(set(subjects)),
        opponent_dice=float(theirs.mean()),
        candidate_dice=float(ours.mean()),
        difference=float((ours - theirs).mean()),
        low=low,
        high=high,
        opponent_noc=_noc([pair.opponent for pair in pairs]),
        candidate_noc=_noc([pair.candidate for pair in pairs]),
    )


def interval(
    values: Floats, subjects: Sequence[str], *, confidence: float, seed: int
) -> tuple[float | None, float | None]:
    """The two-sided interval of the mean, subjects resampled; (None, None) of a single one."""
    names = sorted(set(subjects))
    if len(names) < 2:
        return None, None
    place = {name: number for number, name in enumerate(names)}
    numbers = np.array([place[subject] for subject in subjects])
    sums = np.bincount(numbers, weights=values, minlength=len(names))
    counts = np.bincount(numbers, minlength=len(names))
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES
    )
    means = (drawn @ sums) / (drawn @ counts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _dice(row: EvaluatedMask) -> float:
    clicked = [row.dice_after[min(count, len(row.dice_after)) - 1] for count in CLICKS]
    return float(np.mean([row.dice, *clicked]))


def _noc(rows: Sequence[EvaluatedMask]) -> dict[str, float]:
    """Mean number of clicks to each IoU; who never arrives counts as the most that were made."""
    found = {}
    for target in TARGETS:
        clicks = []
        for row in rows:
            dice = np.array(row.dice_after)
            reached = np.flatnonzero(dice / (2 - dice) >= target)
            clicks.append(int(reached[0]) + 1 if reached.size else len(row.dice_after))
        found[f"{target * 100:.0f}"] = float(np.mean(clicks))
    return found


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
