from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mlworker.contract.messages import Window
from mlworker.inference.geometry import Frame
from mlworker.training.dataset import (
    ChangedFiles,
    Dataset,
    SingleSample,
    UnusableFiles,
    mask_in_frame,
    read_manifest,
    survey,
)
from mlworker.training.samples import DataError, SubjectInTwoSplits, read_image2label
from tests.mlworker.training.small_set import write_manifest, write_set

FRAME = Frame(size=64)


@pytest.fixture
def samples(tmp_path):
    """Six images of a left and a right disc."""
    return read_image2label(write_set(tmp_path / "set", images=6), root=tmp_path / "set")


def dataset(samples, *, seed=0, augmented=False, balanced=False):
    return Dataset(samples, frame=FRAME, seed=seed, augmented=augmented, balanced=balanced)


@pytest.mark.parametrize("augmented", [False, True])
def test_a_draw_is_a_function_of_seed_step_and_place(samples, augmented):
    drawn = [
        dataset(samples, augmented=augmented, seed=seed).draw(epoch=0, step=step, place=4, masks=3)
        for seed, step in ((0, 5), (0, 5), (0, 6), (1, 5))
    ]

    assert drawn[0].image.shape == (64, 64, 3)
    assert drawn[0].masks.shape == (3, 64, 64)
    assert all(mask.any() for image in drawn for mask in image.masks)
    same = [
        np.array_equal(drawn[0].image, other.image) and np.array_equal(drawn[0].masks, other.masks)
        for other in drawn[1:]
    ]
    assert same[0]
    assert not all(same)


def _deep(samples, path):
    """The same samples of one image of CT-like values."""
    values = np.linspace(-1000, 3000, 96 * 96, dtype=np.float32).reshape(96, 96)
    np.save(path, values)
    return [replace(sample, image=path) for sample in samples[:2]]


def test_training_samples_windows_of_deep_images(samples, tmp_path):
    deep = _deep(samples, tmp_path / "values.npy")
    window = Window(centre=40, width=400)
    seen = [
        [
            dataset(some, augmented=augmented).draw(epoch=0, step=step, place=0, masks=1).image
            for step in range(12)
        ]
        for some in (deep, [replace(sample, window=window) for sample in deep])
        for augmented in (False, True)
    ]

    plain, drawn, _, _ = seen
    assert all(np.array_equal(image, plain[0]) for image in plain)
    assert len({image.tobytes() for image in drawn}) == 12
    # Only a tenth of the values lies in the narrow window; the rest is black or white.
    between = [np.mean([((i > 0) & (i < 255)).mean() for i in images]) for images in seen]
    assert between[0] > 0.9
    assert 0.05 < between[2] < 0.2
    assert between[3] < between[1]


def test_every_image_comes_once_an_epoch_in_another_order(samples):
    data = dataset(samples)

    epochs = [
        [data.draw(epoch=epoch, step=place, place=place, masks=1).image.sum() for place in range(6)]
        for epoch in range(2)
    ]

    assert len(set(epochs[0])) == 6
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_balanced_draws_show_rare_labels_and_modalities_as_often(samples):
    # One image in six is of MR, and only one mask in its own modality is called a cyst.
    renamed = [
        replace(sample, modality="MR", label="cyst" if sample.label == "left" else "right")
        if sample.image.stem == "image_0"
        else sample
        for sample in samples
    ]
    renamed.append(renamed[0])
    data = dataset(renamed, balanced=True)

    images = Counter(
        data.draw(epoch=0, step=step, place=0, masks=1).image.sum() for step in range(200)
    )

    assert images.most_common(1)[0][1] == pytest.approx(100, abs=25)


def test_a_label_with_one_sample_cannot_be_balanced(samples):
    single = [replace(samples[0], label="cyst"), *samples[1:]]

    with pytest.raises(SingleSample, match="cyst"):
        dataset(single, balanced=True)
    assert survey(single, frame=FRAME).single_labels == ["cyst"]
    assert len(dataset(single)) == 6


def test_a_set_is_known_by_what_is_in_its_files(samples, tmp_path):
    before = survey(samples, frame=FRAME)
    elsewhere = write_set(tmp_path / "elsewhere", images=6)

    assert before.digest == (
        survey(read_image2label(elsewhere, root=elsewhere.parent), frame=FRAME).digest
    )
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(samples[0].mask)
    assert survey(samples, frame=FRAME).digest != before.digest


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda s: Image.fromarray(np.zeros((96, 96), np.uint8)).save(s.mask), "EmptyMask"),
        (lambda s: Image.fromarray(np.ones((9, 96), np.uint8)).save(s.mask), "SizeMismatch"),
        (lambda s: s.mask.write_bytes(b"no picture"), "FileUnreadable"),
        (lambda s: s.image.write_bytes(s.image.read_bytes()[:200]), "FileUnreadable"),
        (lambda s: s.mask.unlink(), "FileMissing"),
    ],
    ids=["empty", "another size", "no picture", "cut off", "not there"],
)
def test_files_that_cannot_be_used_are_named_before_anything_is_learnt(samples, spoil, named):
    spoil(samples[2])

    with pytest.raises(UnusableFiles, match=f"1 files cannot be used: {named}: .*image_1"):
        survey(samples, frame=FRAME)


def test_a_mask_that_the_model_s_frame_loses_is_named(tmp_path):
    path = write_set(tmp_path / "set", images=1)
    samples = read_image2label(path, root=path.parent)
    dot = np.zeros((96, 96), np.uint8)
    dot[2, 2] = 255  # at 64 px every third column and row is left out, and this is one
    Image.fromarray(dot).save(samples[0].mask)

    with pytest.raises(UnusableFiles, match="nothing left at 64 x 64"):
        survey(samples, frame=FRAME)


@pytest.mark.parametrize("preparation", [1, 2])
def test_a_mask_lies_where_its_image_lies(preparation):
    mask = np.zeros((90, 130), bool)
    mask[20:70, 30:100] = True
    frame = Frame(preparation=preparation, size=64)

    small = mask_in_frame(mask, frame)
    image = frame.resized(np.repeat(mask[:, :, None].astype(np.uint8) * 255, 3, axis=2))

    assert np.mean(small != (image[:, :, 0] > 127)) < 0.001


def test_a_manifest_gives_both_parts(tmp_path):
    path = write_manifest(tmp_path / "set", splits=["train", "val"], subjects=["a", "b"])

    training, validation = read_manifest(path, root=path.parent)

    assert [sample.label for sample in training] == ["left", "right"]
    assert {sample.subject for sample in validation} == {"b"}


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"subject": "b"}, SubjectInTwoSplits, "subject b is in train and in val"),
        ({"image": {"key": "../x", "digest": "0" * 64}}, DataError, "key"),
        ({"image": {"key": "image_0.png", "digest": "0" * 64}}, ChangedFiles, "image_0.png"),
        ({"image": {"key": "none.png", "digest": "0" * 64}}, ChangedFiles, "none.png"),
        ({"masks": []}, DataError, "masks"),
        ({"age": 80}, DataError, "age"),
    ],
    ids=["a leak", "a way out", "another file", "no file", "no masks", "an unknown field"],
)
def test_a_manifest_that_cannot_be_trained_on_is_refused_by_name(tmp_path, change, error, named):
    path = write_manifest(tmp_path / "set", splits=["train", "val"], subjects=["a", "b"])
    content = json.loads(path.read_text())
    content["items"][0] |= change
    path.write_text(json.dumps(content))

    with pytest.raises(error, match=named):
        read_manifest(path, root=path.parent)
