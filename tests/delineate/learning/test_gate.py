"""The gate lets nobody through who is worse, ruined on a label, or has seen who judges."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.learning.gate import interval, judge
from tests.delineate.learning.conftest import rows_of

OLD, NEW = "a" * 64, "b" * 64


def verdict(*rows, trained_on=frozenset(), tolerance=0.02, confidence=0.95):
    """The gate's word on NEW."""
    together = [row for each in rows for row in each]
    return judge(
        together,
        candidate=NEW,
        opponent=OLD,
        trained_on=trained_on,
        confidence=confidence,
        tolerance=tolerance,
    )


def four_each(model, dice, **more):
    """Twelve masks and more of a label: enough to judge by."""
    return rows_of(model, dice, subjects=6, masks_each=3, **more)


def test_one_that_gains_everywhere_is_better():
    found = verdict(four_each(OLD, 0.7), four_each(NEW, 0.8))
    assert found.verdict == "better"
    overall, liver = found.labels
    assert overall.label == "all"
    assert liver.label == "liver"
    assert overall.difference == pytest.approx(0.1, abs=0.01)
    assert overall.low is not None
    assert 0.05 < overall.low <= overall.difference
    assert overall.opponent_noc["85"] >= overall.candidate_noc["85"]


def test_a_planted_worse_model_is_refused():
    found = verdict(four_each(OLD, 0.8), four_each(NEW, 0.6))
    assert found.verdict == "not_better"
    assert "Not better" in found.sentence


def test_a_gain_that_may_be_chance_is_refused():
    better_for_one = [
        row.model_copy(update={"dice": row.dice + (0.3 if row.subject.endswith("0") else -0.03)})
        for row in four_each(NEW, 0.7)
    ]
    found = verdict(four_each(OLD, 0.7), better_for_one)
    assert found.labels[0].difference > 0
    assert found.verdict == "not_better"


def test_one_better_on_average_but_ruined_on_a_label_is_refused():
    found = verdict(
        four_each(OLD, 0.6),
        four_each(NEW, 0.9),
        four_each(OLD, 0.8, label="spleen"),
        four_each(NEW, 0.7, label="spleen"),
    )
    assert found.labels[0].difference > 0.05
    assert found.verdict == "not_better"
    assert "spleen" in found.sentence


def test_a_loss_within_the_tolerance_is_let_through():
    found = verdict(
        four_each(OLD, 0.6),
        four_each(NEW, 0.9),
        four_each(OLD, 0.8, label="spleen"),
        four_each(NEW, 0.79, label="spleen"),
    )
    assert found.verdict == "better"


def test_a_leaked_split_is_refused_however_good_the_model():
    found = verdict(
        four_each(OLD, 0.5), four_each(NEW, 0.99), trained_on=frozenset({"S-000000000003"})
    )
    assert found.verdict == "leaked"
    assert "S-000000000003" in found.sentence


@pytest.mark.parametrize(
    ("subjects", "masks_each", "what"),
    [(4, 9, "4 held-out subjects"), (6, 1, "6 held-out masks of liver"), (0, 0, "no held-out")],
)
def test_too_little_to_judge_by_is_said(subjects, masks_each, what):
    size = {"subjects": subjects, "masks_each": masks_each}
    found = verdict(rows_of(OLD, 0.5, **size), rows_of(NEW, 0.9, **size))
    assert found.verdict == "insufficient"
    assert what in found.sentence


def test_only_masks_that_both_were_asked_for_count():
    found = verdict(four_each(OLD, 0.7)[3:], four_each(NEW, 0.8))
    assert found.labels[0].masks == 15


def test_an_interval_is_over_subjects_and_not_over_masks():
    values = np.repeat([0.1, -0.1, 0.2, 0.0, 0.1, 0.0], 100)
    subjects = [f"s{number // 100}" for number in range(600)]
    low, high = interval(values, subjects, confidence=0.95, seed=0)
    alone, _ = interval(values, [f"m{n}" for n in range(600)], confidence=0.95, seed=0)
    assert low is not None
    assert high is not None
    assert alone is not None
    assert low < 0.02 < alone
    assert low < values.mean() < high
    assert interval(values[:100], subjects[:100], confidence=0.95, seed=0) == (None, None)
