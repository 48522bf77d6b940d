"""Augmented scenes and synthetic structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlworker.training.augment import NONE, Augmentation, augment, change_intensities
from mlworker.training.curate import curate
from mlworker.training.samples import read_image2label
from mlworker.training.scenes import UNLABELLED, Library
from mlworker.training.shapes import add_shapes, outline


@pytest.fixture
def by():
    return np.random.default_rng(5)


@pytest.fixture
def samples(pairs, tmp_path):
    curate(pairs, tmp_path / "out")
    return read_image2label(tmp_path / "out/image2label_train.json", root=tmp_path / "out")


def scene_of(library, by, **changes):
    settings = {
        "size": 64,
        "masks": 2,
        "augmentation": NONE,
        "with_shapes": 0.0,
        "only_shapes": 0.0,
        "by": by,
    }
    return library.draw(**(settings | changes))


def test_without_augmentation_an_image_of_the_right_size_is_unchanged(by) -> None:
    image = by.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = (by.random((64, 64)) < 0.5).astype(np.uint8)

    picture, (cut,) = augment(image, [mask], size=64, ranges=NONE, by=by)

    assert np.abs(picture.astype(int) - image).max() <= 1
    assert np.array_equal(cut, mask)


def test_image_and_mask_move_together(by) -> None:
    """A mask drawn into the image stays where the image shows it, whatever is done to both."""
    y, x = np.mgrid[:120, :160]
    mask = (((x - 70) / 30) ** 2 + ((y - 50) / 20) ** 2 < 1).astype(np.uint8)
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    only_geometry = Augmentation(
        gamma=0, contrast=0, brightness=0, tint=0, invert=0, noise=0, blur_px=0
    )

    for _ in range(20):
        picture, (cut,) = augment(
            image, [mask], size=96, ranges=only_geometry, by=by, around=(70 / 160, 50 / 120)
        )
        shown = picture[..., 0] > 127
        assert 2 * (shown & (cut > 0)).sum() / (shown.sum() + cut.sum()) > 0.95


def test_a_zoom_keeps_in_view_what_it_is_around(by) -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[80:90, 10:20] = 1
    zoomed = Augmentation(zoom=(3, 3))

    kept = [
        augment(
            np.zeros((100, 100, 3), np.uint8),
            [mask],
            size=64,
            ranges=zoomed,
            by=by,
            around=(0.15, 0.85),
        )[1][0].any()
        for _ in range(40)
    ]

    assert sum(kept) >= 38


def test_grey_stays_grey_and_colour_is_not_inverted(by) -> None:
    grey = np.repeat(by.integers(0, 256, (32, 32, 1), dtype=np.uint8), 3, axis=2)
    for _ in range(20):
        changed = change_intensities(grey, ranges=Augmentation(), by=by)
        assert (changed[..., 0] == changed[..., 2]).all()
    inverted = change_intensities(grey, ranges=Augmentation(invert=1, noise=0, blur_px=0), by=by)
    assert np.corrcoef(grey[..., 0].ravel(), inverted[..., 0].ravel())[0, 1] < -0.9
    colour = by.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    kept = change_intensities(colour, ranges=Augmentation(invert=1, noise=0, blur_px=0), by=by)
    assert np.corrcoef(colour.ravel(), kept.ravel())[0, 1] > 0.9


def test_scenes_repeat_masks_where_there_are_too_few(samples, by) -> None:
    scene = scene_of(Library(samples), by, masks=5)

    assert scene.image.shape == (64, 64, 3)
    assert len(scene.masks) == 5
    assert scene.collection == "discs"
    assert len({mask.tobytes() for mask in scene.masks}) == 2


def test_a_scene_says_which_label_is_where(samples, by) -> None:
    library = Library(samples)
    scene = scene_of(library, by)

    assert library.labels == [("discs", "large"), ("discs", "small")]
    assert library.labels_of("discs") == [0, 1]
    assert scene.classes is not None
    for mask in scene.masks:
        assert len(set(scene.classes[mask > 0])) == 1
    assert set(np.unique(scene.classes)) == {0, 1, UNLABELLED}


def test_collections_are_drawn_as_often_as_their_shares_say(samples, by) -> None:
    images = sorted({sample.image for sample in samples})
    library = Library(
        [replace(s, collection="cells") if s.image == images[0] else s for s in samples]
    )

    never = [scene_of(library, by, shares={"discs": 0.0}).collection for _ in range(20)]
    often = [scene_of(library, by, shares={"discs": 9.0}).collection for _ in range(60)]

    assert set(never) == {"cells"}
    assert 40 < often.count("discs") < 60


def test_scenes_of_shapes_show_each_structure_where_its_mask_is(samples, by) -> None:
    for _ in range(10):
        scene = scene_of(Library(samples), by, only_shapes=1.0, masks=3)
        assert scene.classes is None
        for mask in scene.masks:
            assert mask.sum() >= 40
            assert set(np.unique(mask)) == {0, 1}


def test_the_same_seed_draws_the_same_scene(samples) -> None:
    drawn = [
        scene_of(
            Library(samples), np.random.default_rng(4), augmentation=Augmentation(), with_shapes=1.0
        )
        for _ in range(2)
    ]

    assert np.array_equal(drawn[0].image, drawn[1].image)
    assert np.array_equal(drawn[0].masks, drawn[1].masks)


def test_an_outline_inside_another_stays_inside(by) -> None:
    for _ in range(30):
        outer = outline(64, inside=None, by=by)
        if outer.any():
            assert not (outline(64, inside=outer, by=by) & ~outer).any()


def test_later_shapes_hide_earlier_ones_unless_they_lie_inside(by) -> None:
    canvas = np.full((96, 96, 3), 90, np.uint8)
    texture = by.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    for _ in range(10):
        picture, masks = add_shapes(canvas, textures=[texture], count=5, by=by)
        assert picture.shape == canvas.shape
        changed = (picture != canvas).any(axis=2)
        for first in masks:
            assert changed[first > 0].mean() > 0.5
            for second in masks:
                both = (first & second).sum()
                assert both in (0, first.sum(), second.sum()) or both < min(
                    first.sum(), second.sum()
                )
