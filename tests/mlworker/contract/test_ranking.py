"""What to annotate next, on made-up geometry."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mlworker.contract.ranking import (
    STRATEGIES,
    Annotated,
    Candidate,
    pack_features,
    rank,
    unpack_features,
)


def at(*place, id=None, **measured):
    """A candidate at a place of the plane."""
    name = id or ",".join(f"{value:g}" for value in place)
    return Candidate(name, np.array(place, np.float32), **measured)


def shows(*labels, where):
    return Annotated(np.array(where, np.float32), frozenset(labels))


def ids(choices):
    return [choice.id for choice in choices]


@pytest.fixture
def plane():
    """Thirty candidates anywhere, and two annotated slices."""
    drawn = np.random.default_rng(0)
    candidates = [
        at(*drawn.normal(size=2), id=str(n), disagreement=drawn.random(), instability=0.1)
        for n in range(30)
    ]
    return candidates, [shows("liver", where=(0, 0)), shows("spleen", where=(1, 1))]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_chooses_so_many_and_none_twice(strategy, plane):
    for count in (0, 1, 7, 30, 99):
        choices = rank(strategy, *plane, count=count, seed=1)
        assert len(choices) == len(set(ids(choices))) == min(count, 30)
        assert all(choice.reason[0].isupper() and choice.reason[-1] != "." for choice in choices)
        assert sorted((c.score for c in choices), reverse=True) == [c.score for c in choices]
    assert rank(strategy, [], plane[1], count=3, seed=1) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_they_come_in_changes_nothing(strategy, plane):
    candidates, annotated = plane
    backwards = rank(strategy, candidates[::-1], annotated, count=9, seed=4)
    assert backwards == rank(strategy, candidates, annotated, count=9, seed=4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_project_without_any_mask_gets_an_order_too(strategy, plane):
    assert len(rank(strategy, plane[0], [], count=5, seed=0)) == 5


def test_chance_is_the_seeds():
    many = [at(n) for n in range(40)]
    orders = {tuple(ids(rank("random", many, [], count=5, seed=seed))) for seed in range(10)}
    assert len(orders) == 10


def test_uncertainty_is_the_mean_of_three_ranks_whatever_their_scales():
    candidates = [
        at(0, id="sure", predicted_iou=0.99, disagreement=0.00, instability=0.00),
        at(0, id="worst of one", predicted_iou=0.10, disagreement=0.01, instability=0.01),
        at(0, id="bad in all", predicted_iou=0.90, disagreement=0.02, instability=0.02),
    ]
    choices = rank("uncertainty", candidates, [], count=3, seed=0)
    assert ids(choices) == ["bad in all", "worst of one", "sure"]
    assert [round(c.score, 3) for c in choices] == [0.889, 0.778, 0.333]


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"disagreement": 0.59}, "The model's three answers differ most here (overlap 0.41)"),
        (
            {"instability": 0.25},
            "The model's answer changes when a click moves a little (overlap 0.75)",
        ),
        ({"predicted_iou": 0.2}, "The model expects little of its own answer here (IoU 0.20)"),
    ],
)
def test_the_reason_is_the_measure_that_stands_out(measured, reason):
    usual = {"predicted_iou": 0.8, "disagreement": 0.1, "instability": 0.1}
    odd = at(0, id="odd", **{**usual, **measured})
    others = [at(0, id=str(n), **usual) for n in range(5)]
    (choice,) = rank("uncertainty", [*others, odd], [], count=1, seed=0)
    assert choice.id == "odd"
    assert choice.reason == reason


def test_diversity_goes_to_the_corners_that_nobody_has_annotated():
    corners = [at(0, 10), at(10, 0), at(10, 10)]
    crowd = [at(0.1 * n, 0.1) for n in range(20)]
    annotated = [shows("liver", where=(0, 0))]
    choices = rank("diversity", crowd + corners, annotated, count=4, seed=0)
    assert choices[0].id == "10,10"
    assert choices[0].score == pytest.approx(200**0.5, rel=1e-5)
    assert set(ids(choices)[1:3]) == {"0,10", "10,0"}
    assert choices[3].id in ids(choices[3:])
    assert choices[0].reason == "Unlike anything annotated so far"


def test_diversity_begins_with_the_usual_where_nothing_is_annotated():
    choices = rank("diversity", [at(0), at(5), at(10), at(11)], [], count=2, seed=0)
    assert ids(choices) == ["5", "11"]
    assert [c.reason for c in choices] == [
        "Typical of what is there",
        "Unlike the others in this list",
    ]


def test_rare_labels_are_sought_where_they_were_seen():
    annotated = [shows("liver", where=(x, 0)) for x in range(8)]
    annotated += [shows("liver", "spleen", where=(100, y)) for y in range(3)]
    candidates = [at(x, 1) for x in range(8)] + [at(100, 5)]
    first, second = rank("rare_labels", candidates, annotated, count=2, seed=0)
    assert first.id == "100,5"
    assert first.reason == "Probably shows spleen, of which only 3 masks are accepted"
    assert second.reason == "Probably shows liver, of which only 11 masks are accepted"


def test_what_is_chosen_for_a_label_counts_as_if_it_had_it():
    annotated = [shows(label, where=(x, y)) for label, x in (("a", 0), ("b", 90)) for y in range(5)]
    candidates = [at(x, y) for x in (0, 90) for y in range(3)]
    choices = rank("rare_labels", candidates, annotated, count=4, seed=0)
    assert sorted(id.partition(",")[0] for id in ids(choices)) == ["0", "0", "90", "90"]


def test_one_mask_is_said_in_the_singular():
    annotated = [shows("spleen", where=(0, 0))]
    (choice,) = rank("rare_labels", [at(1, 1)], annotated, count=1, seed=0)
    assert choice.reason == "Probably shows spleen, of which only 1 mask is accepted"


def test_mix_is_diverse_among_the_uncertain_alone():
    far_but_sure = [at(1000, n) for n in range(3)]
    uncertain = [at(n, 0, disagreement=0.5, instability=0.5) for n in (1, 2, 30)]
    annotated = [shows("liver", where=(0, 0))]
    (choice,) = rank("mix", far_but_sure + uncertain, annotated, count=1, seed=0)
    assert choice.id == "30,0"
    assert choice.reason == (
        "The model's three answers differ most here (overlap 0.50)."
        " Unlike anything annotated so far"
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_large_project_is_ranked_in_seconds(strategy):
    drawn = np.random.default_rng(0)
    features = drawn.normal(size=(20_000, 256)).astype(np.float32)
    candidates = [Candidate(f"{n:05}", row, *drawn.random(3)) for n, row in enumerate(features)]
    annotated = [Annotated(row, frozenset({f"label {n % 9}"})) for n, row in enumerate(features)]
    began = time.process_time()
    assert len(rank(strategy, candidates, annotated[:1000], count=50, seed=0)) == 50
    assert time.process_time() - began < 15


def test_features_travel_as_text():
    features = np.linspace(-3, 3, 256, dtype=np.float32)
    np.testing.assert_allclose(unpack_features(pack_features(features)), features, atol=2e-3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        pack_features(np.zeros(255, np.float32)),
        pack_features(np.full(256, np.nan, np.float32)),
        "AAA=",
    ],
)
def test_what_is_not_features_is_refused(text):
    with pytest.raises(ValueError, match=r"features|base64|multiple|padding"):
        unpack_features(text)
