"""What each strategy would have had annotated, simulated on a drawn set."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlworker.cli import main
from mlworker.inference.encoder import Encoding
from mlworker.model.checkpoint import Checkpoint
from mlworker.training import active_learning
from mlworker.training.active_learning import (
    Plan,
    Point,
    Remembering,
    TooFewSubjects,
    in_words,
    interval,
    simulate,
    verdicts,
)
from mlworker.training.samples import read_image2label, write_samples
from tests.mlworker.training.small_set import write_set

QUICK = Plan(rounds=1, per_round=1, seeds=1, steps=1, masks=1, most_masks=2)


@pytest.fixture
def samples(tmp_path):
    """Six images of two discs each, of three subjects."""
    listed = read_image2label(write_set(tmp_path / "data", images=6), root=tmp_path / "data")
    return [
        replace(sample, subject=f"subject-{int(sample.image.stem[-1]) % 3}") for sample in listed
    ]


@pytest.fixture
def checkpoint(small_checkpoint):
    return small_checkpoint


def test_strategies_share_their_start_and_go_on_by_themselves(samples, checkpoint):
    told: list[object] = []
    points = simulate(checkpoint, samples, plan=QUICK, progress=told.append)
    assert told == points
    by = {(point.strategy, point.round): point for point in points}
    assert set(by) == {(s, number) for s in QUICK.strategies for number in (0, 1, 2)}
    for number in (0, 1):
        same = {replace(by[s, number], strategy="mix") for s in QUICK.strategies}
        assert len(same) == 1
    assert [by["mix", n].slices for n in (0, 1, 2)] == [0, 1, 2]
    assert [by["mix", n].masks for n in (0, 1, 2)] == [0, 2, 4]
    assert all(0 <= value <= 1 for point in points for value in (point.box, point.point))


def test_the_same_plan_gives_the_same_curves(samples, checkpoint):
    plan = replace(QUICK, strategies=("random", "uncertainty"))
    assert simulate(checkpoint, samples, plan=plan) == simulate(checkpoint, samples, plan=plan)


def test_a_pool_that_is_used_up_ends_the_curve(samples, checkpoint):
    plan = replace(QUICK, strategies=("random",), rounds=9, per_round=2)
    points = simulate(checkpoint, samples, plan=plan)
    assert points[-1].slices == 4  # of two subjects: the third is held out
    assert points[-1].round < 9


def test_nobody_learns_from_who_is_held_out(samples):
    for seed in range(20):
        learnable, held_out = active_learning._split(samples, seed=seed, share=0.4)
        assert {s.subject for s in learnable}.isdisjoint(s.subject for s in held_out)
        assert learnable
        assert held_out


def test_subjects_must_be_known(samples, checkpoint):
    unknown = [replace(sample, subject="unknown") for sample in samples]
    with pytest.raises(TooFewSubjects, match="must be known"):
        simulate(checkpoint, unknown, plan=QUICK)
    one = [replace(sample, subject="one") for sample in samples]
    with pytest.raises(TooFewSubjects, match="one subject"):
        simulate(checkpoint, one, plan=QUICK)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"strategies": ("random", "best")}, "best: not one of"),
        ({"strategies": ("mix",)}, "judged against random"),
        ({"rounds": 0}, "rounds"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        replace(QUICK, **wrong)


def test_an_image_is_encoded_once_and_can_be_learnt_with(small_checkpoint):
    calls = []
    encoder = Checkpoint(small_checkpoint).image_encoder()
    encoder.register_forward_hook(lambda *_: calls.append(1))
    remembering = Remembering(encoder)
    rgb = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    encoding = Encoding(remembering)
    encoding.encode([rgb])
    (embedding,) = encoding.encode([rgb])
    assert len(calls) == 1
    again = remembering(encoding.frame.model_input(rgb)[None])
    assert len(calls) == 1
    assert not again.is_inference()
    torch.testing.assert_close(again[0], torch.from_numpy(embedding).float(), atol=5e-3, rtol=1e-2)


def point(seed, strategy, number, box):
    return Point(seed, strategy, number, 4 * number, 9 * number, box=box, point=box / 2)


def test_a_lead_is_over_chance_of_the_same_seed():
    points = [
        point(seed, strategy, number, 0.5 + seed / 10 + lead + number / 100)
        for seed in (0, 1, 2)
        for strategy, lead in (("random", 0.0), ("mix", 0.02))
        for number in (0, 1, 2, 3)
    ]
    chance, _, mix, by_point = verdicts(points)
    assert (mix.strategy, mix.asked, by_point.asked) == ("mix", "box", "point")
    # Seeds differ by far more than strategies; within each, the lead is the same.
    assert mix.lead.mean == pytest.approx(0.02)
    assert mix.lead.low == pytest.approx(0.02)
    assert mix.mean.mean == pytest.approx(0.645)  # over the rounds in which it had chosen
    assert mix.last.mean == pytest.approx(0.65)
    assert mix.mean.low is not None
    assert mix.mean.high is not None
    assert mix.mean.high - mix.mean.low > 0.4
    assert chance.lead.mean == 0
    assert "| mix | box | 0.645 [" in in_words(points)
    assert "| +0.020 [+0.020, +0.020] |" in in_words(points)


def test_intervals_are_students():
    mean = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean.mean, mean.low, mean.high) == pytest.approx((3.0, 1.0367, 4.9633), abs=1e-3)
    assert interval([0.5]).low is None


def test_the_command_writes_curves_and_prints_a_table(samples, checkpoint, tmp_path, capsys):
    data = tmp_path / "data"
    write_samples(data / "samples.csv", samples)
    pairs = {sample.mask.name: sample.image.name for sample in samples}
    (data / "pairs.json").write_text(json.dumps(pairs))
    out = tmp_path / "out"
    arguments = [
        "evaluate", "--simulate-active-learning", "--pairs", str(data / "pairs.json"),
        "--root", str(data), "--checkpoint", str(checkpoint), "--out", str(out),
        "--strategies", "random,diversity", "--rounds", "1", "--per-round", "1",
        "--seeds", "2", "--steps", "1",
    ]  # fmt: skip
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "| diversity | box |" in told.out
    assert "seed 1, diversity, 2 slices" in told.err
    with (out / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 3
    curves = json.loads((out / "curves.json").read_text())
    assert curves["plan"]["strategies"] == ["random", "diversity"]
    assert len(curves["about"]["digest"]) == 64
    page = (out / "curves.html").read_text()
    assert page.count('<svg class="plot"') == 2
    assert main([*arguments, "--checkpoint", str(checkpoint)]) == 1
