"""Prompts: sampled with a seed, read from files, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from mlworker.contract.messages import Box, Point
from mlworker.training.prompts import (
    EmptyBox,
    PromptFile,
    PromptFileError,
    PromptMissing,
    PromptOutside,
    Prompts,
    error_point,
    randomness_of,
    sample_prompts,
    worst_point,
    write_prompts,
)
from mlworker.training.samples import Sample

SAMPLE = Sample(Path("data/images/a.png"), Path("data/masks/a_liver_000.png"), "liver")


def disc(x: int, y: int, radius: float, *, height: int = 60, width: int = 80):
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def read(tmp_path, content, *, name: str = "prompts.json", height: int = 60, width: int = 80):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return PromptFile(path, root=Path("data")).of(SAMPLE, height=height, width=width)


def ours(**entry):
    masks = {"masks/a_liver_000.png": entry}
    return {"format": "delineate-prompts", "version": 1, "masks": masks}


def test_sampled_prompts_belong_to_their_mask() -> None:
    mask = disc(30, 20, 9)

    for seed in range(30):
        prompts = sample_prompts(mask, by=np.random.default_rng(seed))

        assert prompts.box == Box(x0=21, y0=11, x1=40, y1=30)
        jittered = prompts.jittered_box
        assert jittered
        assert jittered != prompts.box
        for side in ("x0", "y0", "x1", "y1"):
            assert abs(getattr(jittered, side) - getattr(prompts.box, side)) <= 1.9
        (point,) = prompts.points
        assert point.positive
        assert mask[int(point.y), int(point.x)]


def test_a_mask_s_prompts_are_a_function_of_the_seed_and_its_name() -> None:
    def prompts(sample: Sample, seed: int):
        return sample_prompts(disc(30, 20, 9), by=randomness_of(sample, seed=seed))

    elsewhere = Sample(Path("b/images/a.png"), Path("b/masks/a_liver_000.png"), "liver")
    other = Sample(SAMPLE.image, Path("data/masks/a_liver_001.png"), "liver")

    assert prompts(SAMPLE, 1) == prompts(elsewhere, 1)
    assert prompts(SAMPLE, 1) != prompts(SAMPLE, 2)
    assert prompts(SAMPLE, 1) != prompts(other, 1)


def test_one_pixel_can_be_asked_for() -> None:
    prompts = sample_prompts(np.ones((1, 1), bool), by=np.random.default_rng(0))

    assert prompts.box == Box(x0=0, y0=0, x1=1, y1=1)
    assert prompts.points == (Point(x=0, y=0, positive=True),)


def test_the_worst_point_is_the_middle_of_the_largest_error() -> None:
    truth = disc(25, 30, 12) | disc(60, 30, 8)

    assert worst_point(np.zeros_like(truth), truth) == Point(x=25, y=30, positive=True)
    assert worst_point(disc(25, 30, 12), truth) == Point(x=60, y=30, positive=True)
    too_much = truth | disc(60, 10, 9)
    assert worst_point(too_much, truth) == Point(x=60, y=10, positive=False)
    assert worst_point(truth, truth) is None


def test_the_worst_point_is_inside_what_is_wrong_also_where_its_centre_is_not() -> None:
    ring = disc(40, 30, 20) & ~disc(40, 30, 14)

    point = worst_point(np.zeros_like(ring), ring)

    assert point
    assert ring[int(point.y), int(point.x)]


@given(arrays(bool, (9, 12)), arrays(bool, (9, 12)))
def test_the_worst_point_is_where_a_map_of_all_regions_says(predicted, truth) -> None:
    """Another way: every region labelled over the whole image, and every distance taken."""
    regions = []
    for wrong, positive in ((truth & ~predicted, True), (predicted & ~truth, False)):
        labels, count = ndimage.label(wrong, structure=np.ones((3, 3)))
        regions += [(labels == number, positive) for number in range(1, count + 1)]

    point = worst_point(predicted, truth)

    if point is None:
        assert regions == []
        return
    (own,) = [(r, p) for r, p in regions if r[int(point.y), int(point.x)]]
    assert own[0].sum() == max(region.sum() for region, _ in regions)
    assert point.positive == own[1]
    depth = ndimage.distance_transform_edt(np.pad(own[0], 1))[1:-1, 1:-1]
    assert depth[int(point.y), int(point.x)] == pytest.approx(depth.max(), abs=1e-4)


def test_errors_are_sampled_inside_and_outside() -> None:
    truth, predicted = disc(30, 30, 10), disc(36, 30, 10)
    by = np.random.default_rng(0)

    points = [error_point(predicted, truth, by=by) for _ in range(40)]

    assert {point.positive for point in points if point} == {True, False}
    for point in points:
        assert point
        assert truth[int(point.y), int(point.x)] == point.positive
    assert error_point(truth, truth, by=by) is None


def test_what_is_written_is_read(tmp_path) -> None:
    prompts = Prompts(
        Box(x0=1, y0=2, x1=30.5, y1=40),
        Box(x0=0.25, y0=3, x1=29, y1=41),
        (Point(x=3, y=4, positive=True), Point(x=79, y=59, positive=False)),
    )
    write_prompts(tmp_path / "prompts.json", {"masks/a_liver_000.png": prompts})

    file = PromptFile(tmp_path / "prompts.json", root=Path("data"))

    assert file.of(SAMPLE, height=60, width=80) == prompts


def test_the_published_form_is_of_the_model_s_square(tmp_path) -> None:
    """By bare names, nested by batch; a large image was stretched, a small one padded."""
    entry = {
        "boxes": [[[64.0, 32.0, 128.0, 96.0]]],
        "point_coords": [[100.0, 60.0]],
        "point_labels": [[1]],
    }
    content = {"a_liver_000.png": entry}

    stretched = read(tmp_path, content, name="256_prompt.json", height=512, width=300)
    padded = read(tmp_path, content, name="256_prompt.json", height=200, width=150)
    larger = read(tmp_path, content, name="1024_prompt.json", height=512, width=2048)

    assert stretched.box == Box(x0=75, y0=64, x1=150, y1=192)
    assert stretched.points == (Point(x=117.1875, y=120, positive=True),)
    assert padded.box == Box(x0=11, y0=4, x1=75, y1=68)
    assert padded.points == (Point(x=47, y=32, positive=True),)
    assert larger.points == (Point(x=200, y=30, positive=True),)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", PromptFileError, "cannot be read"),
        ("[]", PromptFileError, "not a JSON object"),
        ({"a_liver_000.png": [1, 2]}, PromptFileError, "does not map masks"),
        ({**ours(), "version": 2}, PromptFileError, "version that is not known"),
        ({**ours(), "masks": 3}, PromptFileError, "does not map masks"),
        ({"b.png": {}}, PromptMissing, "says nothing of masks/a_liver_000.png"),
        (ours(boxes=[[1, 2, 3]]), PromptFileError, "4 finite numbers"),
        (ours(boxes="all"), PromptFileError, "not numbers"),
        (
            '{"a_liver_000.png": {"point_coords": [[NaN, 1]], "point_labels": [1]}}',
            PromptFileError,
            "2 finite numbers",
        ),
        (ours(point_coords=[[1, 2]]), PromptFileError, "a label, 0 or 1"),
        (ours(point_coords=[[1, 2]], point_labels=[7]), PromptFileError, "a label, 0 or 1"),
        (ours(point_coords=[[80, 2]], point_labels=[1]), PromptOutside, "a point outside"),
        (ours(point_coords=[[4, -1]], point_labels=[0]), PromptOutside, "a point outside"),
        (ours(boxes=[[1, 2, 90, 20]]), PromptOutside, "reaches outside"),
        (ours(boxes=[[5, 2, 5, 20]]), EmptyBox, "without area"),
        (ours(jittered_boxes=[[9, 2, 5, 20]]), EmptyBox, "without area"),
    ],
)
def test_files_that_are_refused(tmp_path, content, error, message) -> None:
    with pytest.raises(error, match=message):
        read(tmp_path, content)


def test_a_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(PromptFileError, match="cannot be read"):
        PromptFile(tmp_path / "nothing.json", root=tmp_path)
