"""Curation by the paper's rules."""

from __future__ import annotations

import csv
import json

import nibabel
import nrrd
import numpy as np
import pytest
from PIL import Image

from mlworker.cli import main
from mlworker.training.curate import curate, summary
from mlworker.training.samples import DataError, read_image2label, read_label2image
from tests.mlworker.training.conftest import draw, write_pairs


def row(**changes: str) -> dict[str, str]:
    return {
        "set": "s",
        "modality": "MR",
        "image": "image.png",
        "mask": "mask.png",
        "mask_encoding": "labels",
        "labels": "",
        "group": "g",
        "split": "train",
    } | changes


def test_every_class_and_component_becomes_a_mask_of_its_own(pairs, tmp_path) -> None:
    curation = curate(pairs, tmp_path / "out")

    samples = read_image2label(tmp_path / "out/image2label_train.json", root=tmp_path / "out")
    assert len(samples) == 8
    assert samples == curation.kept["train"]
    assert {(s.label, s.modality, s.collection) for s in samples} == {
        ("small", "CT", "discs"),
        ("large", "CT", "discs"),
    }
    assert samples[0].subject == "subject-i0"
    assert samples[0].mask.name == "discs_i0_small_000.png"
    mask = np.asarray(Image.open(samples[0].mask))
    labels = np.asarray(Image.open(tmp_path / "i0_labels.png"))
    assert np.array_equal(mask, np.where(labels == 1, 255, 0))
    validation = read_label2image(tmp_path / "out/label2image_val.json", root=tmp_path / "out")
    assert [s.subject for s in validation] == ["subject-i4"] * 2 + ["subject-i5"] * 2


def test_components_are_separated_and_small_ones_dropped_with_their_reason(tmp_path) -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[5:30, 5:30] = labels[60:80, 60:90] = 1
    labels[95, 95] = 1
    Image.fromarray(np.full((100, 100), 9, np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "mask.png")

    curation = curate(write_pairs(tmp_path, [row(labels="x")]), tmp_path / "out")

    assert [s.mask.name for s in curation.kept["train"]] == [
        "s_image_x_000.png",
        "s_image_x_001.png",
    ]
    with (tmp_path / "out/dropped.csv").open() as file:
        dropped = list(csv.DictReader(file))
    assert dropped == [{"what": "s_image_x_002", "reason": "mask under 0.153 % of the image"}]
    assert "dropped, mask under 0.153 % of the image: 1" in summary(curation)


@pytest.mark.parametrize(
    ("encoding", "values", "masks"),
    [
        ("binary >127", {10: 0, 200: 1}, {"structure": 1}),
        ("instance ids uint16", {3: 1, 900: 1}, {"object": 2}),
        ("label 1", {1: 1, 2: 0}, {"structure": 1}),
        ("labels", {4: 1, 9: 1}, {"structure_4": 1, "structure_9": 1}),
    ],
)
def test_mask_encodings(tmp_path, encoding, values, masks) -> None:
    labels = np.zeros((60, 60), np.uint16)
    for place, value in enumerate(values):
        labels[10:50, 5 + 30 * place : 25 + 30 * place] = value
    Image.fromarray(labels).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(tmp_path / "image.png")

    curation = curate(write_pairs(tmp_path, [row(mask_encoding=encoding)]), tmp_path / "out")

    found: dict[str, int] = {}
    for sample in curation.kept["train"]:
        found[sample.label] = found.get(sample.label, 0) + 1
    assert found == masks


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_volumes_are_cut_along_all_axes_and_flat_slices_dropped(tmp_path, ending) -> None:
    values = np.random.default_rng(0).normal(500, 200, (40, 44, 12)).astype(np.float32)
    labels = np.zeros(values.shape, np.uint8)
    labels[10:30, 10:30, 3:9] = 1
    for name, array in (("image", values), ("mask", labels)):
        if ending == "nrrd":
            nrrd.write(str(tmp_path / f"{name}.nrrd"), array)
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    pairs = write_pairs(tmp_path, [row(image=f"image.{ending}", mask=f"mask.{ending}")])

    curation = curate(pairs, tmp_path / "out")

    # Along the third axis six slices of 44 x 40; the others are 12 px high and dropped.
    names = [sample.image.stem for sample in curation.kept["train"]]
    assert names == [f"s_image_z_{index:03d}" for index in range(3, 9)]
    assert {each.reason for each in curation.dropped} == {"short edge under half the long edge"}
    assert len(curation.dropped) == 40
    slice_ = np.asarray(Image.open(curation.kept["train"][0].image))
    assert slice_.shape == (44, 40)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = (np.clip(values[:, :, 3].T, low, high) - low) / (high - low) * 255
    assert np.abs(slice_ - expected).max() <= 1

    fewer = curate(pairs, tmp_path / "fewer", slices_per_axis=2)
    assert [s.image.stem[-3:] for s in fewer.kept["train"]] == ["003", "008"]


def test_an_unreadable_pair_is_dropped_and_the_others_kept(tmp_path) -> None:
    good = draw(tmp_path, "good", seed=1)
    bad = draw(tmp_path, "bad", seed=2)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    other = draw(tmp_path, "other", seed=3)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "other_labels.png")

    curation = curate(write_pairs(tmp_path, [good, bad, other]), tmp_path / "out")

    assert {s.image.stem for s in curation.kept["train"]} == {"discs_good"}
    assert [each.reason.split(":")[0] for each in curation.dropped] == ["unreadable"] * 2


def test_a_subject_in_two_splits_is_refused_and_nothing_written(tmp_path) -> None:
    rows = [draw(tmp_path, f"i{n}", seed=n) | {"group": "one"} for n in range(2)]
    rows[1]["split"] = "val"

    with pytest.raises(DataError, match="1 groups are in more than one split: one"):
        curate(write_pairs(tmp_path, rows), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_was_kept_and_what_is_wrong(pairs, tmp_path, capsys) -> None:
    assert main(["curate", str(pairs), "--to", str(tmp_path / "out")]) == 0
    assert "train: 8 masks on 4 images of 4 subjects" in capsys.readouterr().out

    assert main(["curate", str(tmp_path / "none.csv"), "--to", str(tmp_path / "out")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_equal_input_gives_equal_lists(pairs, tmp_path) -> None:
    for name in ("a", "b"):
        curate(pairs, tmp_path / name)

    for name in ("image2label_train.json", "label2image_val.json", "samples.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a/image2label_val.json").read_text())
