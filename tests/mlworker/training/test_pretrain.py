"""Training from scratch: it learns, it goes on where it stopped, it refuses to go on with NaN."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlworker.cli import main
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint
from mlworker.training import pretrain, processes
from mlworker.training.curate import curate
from mlworker.training.pretrain import Recipe, Run, scenes_of
from mlworker.training.samples import read_image2label

RECIPE = Recipe(
    images=2,
    masks=2,
    outline_steps=1,
    outline_rows=4,
    seeing_steps=1,
    seeing_images=2,
    bfloat16=False,
    warm_up=1,
)


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    small = sam_med2d.Encoder(dim=32, depth=1, heads=2, global_blocks=(0,), hybrid=True)
    monkeypatch.setitem(sam_med2d.ENCODERS, "hybrid_t", small)


@pytest.fixture
def data(pairs, tmp_path):
    curate(pairs, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def run(data):
    return Run(RECIPE, read_image2label(data / "image2label_train.json", root=data))


def test_the_loss_falls(run) -> None:
    scenes = scenes_of(run)
    losses = [run.step(scenes) for _ in range(8)]

    assert losses[-1] < 0.9 * losses[0]


def test_the_encoder_alone_learns_to_name_what_it_sees(run) -> None:
    scenes = scenes_of(run)
    decoder = [p.detach().clone() for p in run.model.mask_decoder.parameters()]
    losses = [run.seeing_step(scenes) for _ in range(12)]

    assert losses[-1] < 0.9 * losses[0]
    after = run.model.mask_decoder.parameters()
    assert all(torch.equal(a, b) for a, b in zip(decoder, after, strict=True))


def test_a_run_that_goes_on_ends_at_the_same_weights(run, data) -> None:
    run.outlines_step()
    run.seeing_step(scenes_of(run))
    run.step(scenes_of(run))
    state = run.state()
    copy = {key: _copied(value) for key, value in state.items()}
    run.step(scenes_of(run))

    other = Run(RECIPE, read_image2label(data / "image2label_train.json", root=data))
    other.load(copy)
    other.step(scenes_of(other))

    assert other.progress == run.progress
    for name in ("model", "average"):
        expected, found = run.state()[name], other.state()[name]
        assert all(torch.equal(expected[key], found[key]) for key in expected), name


def test_a_run_goes_on_with_images_of_more_labels(run, data) -> None:
    run.step(scenes_of(run))
    samples = read_image2label(data / "image2label_train.json", root=data)
    named_otherwise = replace(samples[0], label="another one")
    other = Run(RECIPE, [*samples[1:], named_otherwise])
    other.load(run.state())
    loss = other.step(scenes_of(other))

    assert len(other.library.labels) == len(run.library.labels) + 1
    assert other.progress.step == 2
    assert math.isfinite(loss)


def _copied(state):
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state


def test_a_loss_that_is_no_number_ends_the_run_before_it_harms_the_weights(run) -> None:
    scenes = scenes_of(run)
    before = [p.detach().clone() for p in run.model.mask_decoder.parameters()]
    with torch.no_grad():
        next(run.model.image_encoder.parameters()).fill_(math.nan)

    with pytest.raises(FloatingPointError, match="the loss is nan in step 1"):
        run.step(scenes)
    after = run.model.mask_decoder.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_training_stops_when_the_learning_rate_has_fallen(run) -> None:
    kept = []
    run.recipe = RECIPE.model_copy(update={"steps": 1, "fall_steps": 2})
    pretrain.train(
        run,
        until=time.monotonic() + 600,
        keep=lambda run: kept.append(run.progress.step),
        say=lambda line: None,
    )

    assert run.progress.step == 3
    assert (run.progress.outline_step, run.progress.seeing_step) == (1, 1)
    assert kept[-1] == 3


def test_what_joins_late_changes_nothing_before(data) -> None:
    """So that runs with and without a collection can share their beginning."""
    samples = read_image2label(data / "image2label_train.json", root=data)
    last = max(sample.image for sample in samples)
    samples = [replace(s, collection="late") if s.image == last else s for s in samples]
    never = Run(RECIPE.model_copy(update={"without": frozenset({"late"})}), samples)
    joins = Run(RECIPE.model_copy(update={"joins": {"late": 2}}), samples)

    for _ in range(2):
        assert {scene.collection for scene in scenes_of(joins)} <= {"discs", "shapes"}
        assert never.step(scenes_of(never)) == joins.step(scenes_of(joins))
    assert (never.shares, joins.shares) == ({"late": 0.0}, {"late": RECIPE.catch_up})


def test_a_label_that_is_not_there_does_not_teach_to_say_nothing(run) -> None:
    """The loss of labels is that of what is there; the others only in what is said instead."""
    scene = scenes_of(run)[0]
    assert scene.classes is not None
    numbers = run.library.labels_of(scene.collection)
    there = [number for number in numbers if (scene.classes[2::4, 2::4] == number).any()]
    absent = torch.full((1, len(run.library.labels), 64, 64), -9.0)
    right = absent.clone()
    for number in there:
        right[0, number] = torch.from_numpy(scene.classes[2::4, 2::4] == number) * 18.0 - 9.0
    named = [torch.nn.functional.pixel_unshuffle(each, 4) for each in (absent, right)]

    silent, perfect = (float(run._label_loss(each, [scene])) for each in named)
    assert perfect < 0.02
    assert silent > 1


def test_the_first_of_several_points_is_inside() -> None:
    by = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 10:30] = True
    for _ in range(20):
        points, labels = pretrain._first_points(mask, count=5, by=by)
        columns, rows = points.astype(int).T
        assert labels[0] == 1
        assert (mask[rows, columns] == labels).all()


def test_the_command_writes_a_model_that_serves_and_goes_on_from_its_state(
    data, tmp_path, monkeypatch
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(RECIPE.model_dump_json())
    # A recipe in a file may be read before the clock runs out, so at least one step is made.
    steps = iter([True, True, True, False] * 2)
    monkeypatch.setattr(processes, "any_of", lambda *, claim: next(steps))
    command = ["pretrain", "--data", str(data), "--recipe", str(recipe), "--minutes", "1"]

    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    first = Checkpoint(tmp_path / "run/average.safetensors").metadata
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    second = Checkpoint(tmp_path / "run/average.safetensors").metadata

    assert (first.preparation, first.adapters, first.trained) == (2, False, True)
    assert "1 steps" in first.origin
    assert "4 steps" in second.origin


def test_the_state_before_the_fall_is_kept_for_another_recipe(data, tmp_path) -> None:
    recipe, out = tmp_path / "recipe.json", tmp_path / "run"
    recipe.write_text(RECIPE.model_copy(update={"steps": 1, "fall_steps": 1}).model_dump_json())
    command = ["pretrain", "--data", str(data), "--recipe", str(recipe), "--minutes", "60"]

    assert main([*command, "--out", str(out)]) == 0

    kept = torch.load(out / "before_fall.state", weights_only=True)
    assert kept["progress"]["step"] == 1
    assert torch.load(out / "last.state", weights_only=True)["progress"]["step"] == 2
    longer = RECIPE.model_copy(update={"steps": 2, "fall_steps": 1, "joins": {"discs": 0}})
    recipe.write_text(longer.model_dump_json())
    origin = ["--from", str(out / "before_fall.state")]
    assert main([*command, "--out", str(tmp_path / "other"), *origin]) == 0
    assert "3 steps" in Checkpoint(tmp_path / "other/average.safetensors").metadata.origin
