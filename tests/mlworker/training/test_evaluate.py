"""Evaluations: each protocol with a model whose answers are known, and every kind of bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlworker.contract.masks import dice
from mlworker.contract.messages import Box, Point
from mlworker.training.evaluate import NothingToEvaluate, Plan, evaluate, side_by_side
from mlworker.training.prompts import PromptFile
from mlworker.training.rivals import RIVALS
from mlworker.training.samples import Sample, read_label2image
from mlworker.training.summary import clicks, differences, figures
from tests.mlworker.training.drawn import (
    DISCS,
    HEIGHT,
    LABELS,
    WIDTH,
    annotator,
    disc,
    untrained_model,
    write_set,
)

BOX = Plan(protocols=("box",))


@pytest.fixture
def samples(tmp_path):
    """Three discs in each of two images."""
    return read_label2image(write_set(tmp_path / "set"), root=tmp_path / "set")


def save(mask, path: Path) -> None:
    Image.fromarray(np.asarray(mask, np.uint8) * 255).save(path)


def test_each_image_is_encoded_once_for_all_its_masks_and_protocols(samples) -> None:
    model, encoder, _ = annotator()

    done = evaluate(model, samples)

    assert encoder.seen == [(1, 3, 256, 256)] * 2
    assert (done.speed["annotator"].images, done.speed["annotator"].masks) == (2, 6)
    assert len(done.rows) == 6 * 6


def test_boxes_are_asked_for_as_they_are_and_jittered(samples) -> None:
    model, _, predictor = annotator()

    done = evaluate(model, samples[:1], plan=Plan(protocols=("box", "box-jittered")))

    exact, jittered = (box for _, box, _ in predictor.asked)
    assert exact == Box(x0=15, y0=21, x1=34, y1=40)
    assert jittered
    assert jittered != exact
    filled = np.zeros((HEIGHT, WIDTH), bool)
    filled[21:40, 15:34] = True
    (row, _) = done.rows
    assert row.scores.dice == pytest.approx(dice(filled, disc(*DISCS[0])))
    assert row.predicted_iou == 0.5
    assert (row.label, row.modality, row.collection) == ("small", "CT", "discs")
    assert row.subject == "subject-0"


def test_sampled_points_follow_what_is_still_wrong(samples) -> None:
    """One point to begin with, then one more each time, with the last answer as mask prompt."""
    model, _, predictor = annotator(radius=4)
    plan = Plan(protocols=("1-point", "3-points", "5-points"))

    done = evaluate(model, samples[1:2], plan=plan)

    asked = [(len(points), with_mask) for points, _, with_mask in predictor.asked]
    assert asked == [(1, False), (2, True), (3, True), (4, True), (5, True)]
    truth = disc(*DISCS[1])
    assert all(truth[int(p.y), int(p.x)] == p.positive for p in predictor.asked[-1][0])
    assert [row.protocol for row in done.rows] == ["1-point", "3-points", "5-points"]
    reached = [row.scores.dice for row in done.rows]
    assert reached == sorted(reached)
    assert reached[0] < reached[-1]


def test_clicks_go_to_the_middle_of_the_largest_error_and_are_counted(samples) -> None:
    model, _, predictor = annotator(radius=9)

    done = evaluate(model, samples[:1], plan=Plan(protocols=("clicks",), clicks=4))

    # Its first click paints the whole disc; nothing is wrong any more, and nothing is asked.
    (row,) = done.rows
    assert predictor.asked == [((Point(x=24, y=30, positive=True),), None, False)]
    assert row.dice_after == (1.0, 1.0, 1.0, 1.0)
    (overall, *_) = clicks(done.rows, seed=0)
    assert [overall.to_iou[to].mean for to in ("80", "85", "90")] == [1.0, 1.0, 1.0]


def test_who_never_arrives_needs_all_clicks(samples) -> None:
    model, _, _ = annotator(radius=1)

    done = evaluate(model, samples[1:2], plan=Plan(protocols=("clicks",), clicks=3))

    (overall, *_) = clicks(done.rows, seed=0)
    assert overall.to_iou["80"].mean == 3
    assert overall.never["80"] == 1
    assert overall.dice_after[-1].mean > overall.dice_after[0].mean


def test_prompts_of_a_file_are_asked_at_once(samples, tmp_path) -> None:
    path = tmp_path / "prompts.json"
    root = samples[0].mask.parents[1]
    entry = {"point_coords": [[24, 30], [2, 3], [26, 31]], "point_labels": [1, 0, 1]}
    content = {"format": "delineate-prompts", "version": 1}
    path.write_text(json.dumps({**content, "masks": {"masks/image0_small_000.png": entry}}))
    model, _, predictor = annotator(radius=2)
    plan = Plan(protocols=("1-point", "3-points", "5-points"))

    done = evaluate(model, samples[:1], plan=plan, prompts=PromptFile(path, root=root), root=root)

    asked = [(len(points), with_mask) for points, _, with_mask in predictor.asked]
    # The file's three at once, without a mask; the fifth can only be had one after another.
    assert asked == [(3, False), (1, False), (2, True), (3, True), (4, True), (5, True)]
    assert sorted(row.protocol for row in done.rows) == ["1-point", "3-points", "5-points"]


def test_the_same_seed_gives_the_same_rows_and_neither_order_nor_number_changes_them(
    samples, small_checkpoint
) -> None:
    model = untrained_model(small_checkpoint)
    plan = Plan(protocols=("box-jittered", "3-points"), seed=5)

    def rows(of, **changes):
        done = evaluate(model, of, plan=replace(plan, **changes))
        return {(row.mask, row.protocol): row.scores for row in done.rows}

    everything = rows(samples)
    backwards = rows(samples[::-1])
    assert {key: everything[key].dice for key in everything} == pytest.approx(
        {key: backwards[key].dice for key in everything}, abs=1e-6
    )
    part = rows(samples[:2])
    assert part == {key: everything[key] for key in part}
    assert rows(samples, seed=6) != everything


def test_rivals_are_asked_with_the_same_boxes(samples) -> None:
    model, _, _ = annotator()
    plan = Plan(protocols=("box", "box-jittered", "1-point"), rivals=tuple(RIVALS))

    done = evaluate(model, samples, plan=plan)

    overall = [f for f in figures(done.rows, seed=0) if f.by == "masks"]
    mean = {(f.model, f.protocol): f.measures["dice"].mean for f in overall}
    # The model fills the box, as the first rival does; discs are ellipses, but for their pixels.
    assert mean["annotator", "box"] == mean["the box itself", "box"]
    assert mean["ellipse in the box", "box"] > mean["the box itself", "box"]
    assert mean["GrabCut from the box", "box"] > 0.97  # bright discs on dark ground
    assert mean["ellipse in the box", "box-jittered"] < mean["ellipse in the box", "box"]
    assert {f.protocol for f in overall if f.model in RIVALS} == {"box", "box-jittered"}
    assert {d.model for d in differences(done.rows, seed=0)} == set(RIVALS)


def test_distances_are_in_millimetres_where_a_spacing_is_known(samples) -> None:
    model, _, _ = annotator()

    px = evaluate(model, samples, plan=BOX)
    mm = evaluate(model, samples, plan=BOX, spacing=lambda sample: (0.5, 0.5))

    assert [row.scores.hd95 for row in mm.rows] == [row.scores.hd95 / 2 for row in px.rows]


def test_small_images_are_padded_where_the_published_evaluation_did(samples) -> None:
    model, _, predictor = annotator(size=256)

    stretched = evaluate(model, samples[:1], plan=BOX)
    padded = evaluate(model, samples[:1], plan=replace(BOX, small="padded"))

    (_, first, _), (_, second, _) = predictor.asked
    left, top = (256 - WIDTH) // 2, (256 - HEIGHT) // 2
    assert first == Box(x0=15, y0=21, x1=34, y1=40)
    assert second == Box(x0=15 + left, y0=21 + top, x1=34 + left, y1=40 + top)
    assert padded.rows == stretched.rows  # found at the same place of the image itself


def test_the_worst_are_kept_worst_first(samples) -> None:
    model, _, _ = annotator()

    done = evaluate(model, samples, plan=Plan(protocols=("box", "1-point")), worst=4)

    cases = done.worst["annotator"]
    own = [row for row in done.rows if row.protocol == "box"]
    reached = [case.row.scores.dice for case in cases]
    assert reached == sorted(reached)
    # The worst of each label, and the worst of what is left.
    worst = {
        min((r for r in own if r.label == label), key=lambda r: r.scores.dice) for label in LABELS
    }
    others = min((row for row in own if row not in worst), key=lambda r: r.scores.dice)
    assert {case.row.scores.dice for case in cases} == {row.scores.dice for row in (*worst, others)}
    for case in cases:
        truth = np.asarray(Image.open(case.sample.mask)) > 0
        assert dice(case.mask(), truth) == case.row.scores.dice


def test_models_side_by_side_are_compared_mask_by_mask(samples) -> None:
    one, _, _ = annotator(radius=9)
    other, _, _ = annotator(radius=2)
    plan = Plan(protocols=("1-point",))

    both = side_by_side(
        [
            evaluate(one, samples, plan=plan),
            evaluate(replace(other, name="finer"), samples, plan=plan),
        ]
    )

    (difference,) = differences(both.rows, seed=0)
    assert (difference.model, difference.than, difference.masks) == ("finer", "annotator", 6)
    own = {f.model: f.measures["dice"].mean for f in figures(both.rows, seed=0) if f.by == "masks"}
    assert difference.dice.mean == pytest.approx(own["finer"] - own["annotator"])
    assert set(both.worst) == set(both.speed) == {"annotator", "finer"}


def test_a_label_with_one_sample_has_a_mean_without_an_interval(samples) -> None:
    model, _, _ = annotator()

    done = evaluate(model, [*samples[:2], samples[4]], plan=BOX)

    by_label = {f.group: f for f in figures(done.rows, seed=0) if f.by == "label"}
    assert (by_label["small"].masks, by_label["small"].measures["dice"].low) == (1, None)
    large = by_label["large"].measures["dice"]
    assert large.low is not None
    assert large.high is not None
    assert large.low <= large.mean <= large.high


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda s: s.image.unlink(), "FileMissing"),
        (lambda s: s.mask.unlink(), "FileMissing"),
        (lambda s: s.image.write_bytes(b"GIF89a"), "FileUnreadable"),
        (lambda s: s.image.write_bytes(s.image.read_bytes()[:90]), "FileUnreadable"),
        (lambda s: save(np.zeros((HEIGHT, WIDTH)), s.mask), "EmptyMask"),
        (lambda s: save(np.ones((WIDTH, HEIGHT)), s.mask), "SizeMismatch"),
    ],
    ids=["no image", "no mask", "no picture", "cut off", "empty mask", "another size"],
)
def test_what_cannot_be_evaluated_is_left_out_by_name(samples, spoil, error) -> None:
    spoil(samples[0])
    model, _, _ = annotator()

    done = evaluate(model, samples, plan=BOX)

    assert {excluded.error for excluded in done.excluded} == {error}
    assert len(done.rows) + len(done.excluded) == 6
    assert samples[0].mask.as_posix() in {excluded.mask for excluded in done.excluded}
    with pytest.raises(NothingToEvaluate, match="none of 1 masks"):
        evaluate(model, samples[:1], plan=BOX)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.full((HEIGHT, WIDTH), np.nan, np.float32), "NotFinite"),
        (np.full((HEIGHT, WIDTH), np.inf, np.float32), "NotFinite"),
        (np.zeros((3, HEIGHT, WIDTH, 2), np.float32), "FileUnreadable"),
        (np.zeros((0, WIDTH), np.float32), "FileUnreadable"),
        (np.array([{"code": 1}], dtype=object), "FileUnreadable"),
        (np.zeros((HEIGHT, WIDTH), np.float32), None),
        (np.linspace(-1000, 3000, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH), None),
    ],
    ids=["NaN", "infinite", "four axes", "no pixels", "a pickle", "all zero", "CT values"],
)
def test_stored_values_are_images_too(samples, tmp_path, values, error) -> None:
    path = tmp_path / "values.npy"
    np.save(path, values, allow_pickle=True)
    model, _, _ = annotator()

    done = evaluate(model, [replace(samples[0], image=path), samples[3]], plan=BOX)

    assert [excluded.error for excluded in done.excluded] == ([error] if error else [])
    assert len(done.rows) == (1 if error else 2)


def test_deep_pictures_are_scaled_and_not_cut_off(samples, tmp_path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray((disc(*DISCS[0]) * np.uint16(40_000)).astype(np.uint16)).save(path)
    model, _, _ = annotator()
    plan = replace(BOX, rivals=("GrabCut from the box",))

    done = evaluate(model, [replace(samples[0], image=path)], plan=plan)

    assert done.rows[1].scores.dice > 0.97


def test_an_image_without_anything_in_it_is_evaluated(samples, small_checkpoint) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(samples[0].image)
    plan = Plan(rivals=tuple(RIVALS), clicks=2)

    done = evaluate(untrained_model(small_checkpoint), samples[:1], plan=plan)

    assert len(done.rows) == 6 + 2 * 3
    assert all(math.isfinite(row.scores.hd95) for row in done.rows)


@pytest.mark.parametrize("small", ["stretched", "padded"])
def test_one_pixel_is_evaluated(tmp_path, small_checkpoint, small) -> None:
    for name in ("image.png", "mask.png"):
        save(np.ones((1, 1)), tmp_path / name)
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png", "dot")
    plan = Plan(rivals=tuple(RIVALS), clicks=2, small=small)

    done = evaluate(untrained_model(small_checkpoint), [sample], plan=plan)

    assert done.excluded == []
    assert {row.scores.dice for row in done.rows} <= {0.0, 1.0}
    ours = [row for row in done.rows if row.model == "the box itself" and row.protocol == "box"]
    assert [row.scores.dice for row in ours] == [1.0]


def test_a_hundred_megapixels_are_evaluated(tmp_path) -> None:
    side = 10_000
    for name in ("image.png", "mask.png"):
        canvas = np.zeros((side, side), np.uint8)
        canvas[4000:4600, 5000:5900] = 255
        Image.fromarray(canvas).save(tmp_path / name, compress_level=1)
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png", "slide")
    model, encoder, _ = annotator()

    done = evaluate(model, [sample], plan=replace(BOX, rivals=tuple(RIVALS)))

    assert encoder.seen == [(1, 3, 256, 256)]
    assert [row.scores.dice for row in done.rows[:2]] == [1.0, 1.0]
    assert done.rows[0].scores.hd95 == 0


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"boxes": [[10, 10, 10, 40]]}, "EmptyBox"),
        ({"boxes": [[10, 10, 400, 40]]}, "PromptOutside"),
        ({"point_coords": [[3, 3]], "point_labels": [1]}, "PromptMissing"),
        (None, "PromptMissing"),
    ],
    ids=["without area", "outside", "no box", "nothing"],
)
def test_prompts_that_cannot_be_asked_leave_their_mask_out(samples, tmp_path, entry, error) -> None:
    path = tmp_path / "prompts.json"
    good = {"boxes": [[50, 30, 80, 60]]}
    masks = {"image0_small_000.png": entry} if entry is not None else {}
    content = {"masks": masks | {"image0_large_000.png": good}}
    path.write_text(json.dumps({"format": "delineate-prompts", "version": 1, **content}))
    model, _, predictor = annotator()

    done = evaluate(model, samples[:2], plan=BOX, prompts=PromptFile(path, root=tmp_path))

    assert [excluded.error for excluded in done.excluded] == [error]
    assert predictor.asked == [((), Box(x0=50, y0=30, x1=80, y1=60), False)]


@pytest.mark.parametrize(
    "wrong", [{"protocols": ("lasso",)}, {"rivals": ("a dice",)}, {"clicks": 0}, {"protocols": ()}]
)
def test_plans_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"not one of|needs a protocol"):
        Plan(**wrong)
