from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mlworker.cli import main
from mlworker.contract.artifacts import unpack_array
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint, digest_of_file
from tests.mlworker import commands, reference

TWO_BOXES = ("--box", "60,40,200,150", "--box", "10,10,90,70")


@pytest.fixture
def images(tmp_path):
    """A folder with a picture, an array, and something else."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(reference.image("b")).save(folder / "one.png")
    np.save(folder / "two.npy", commands.ct_slice())
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_of_images_becomes_embeddings(images, small_checkpoint, tmp_path, capsys):
    to = tmp_path / "embeddings"

    status = main(["embed", str(images), "--checkpoint", str(small_checkpoint), "--to", str(to)])

    assert status == 0
    assert sorted(path.name for path in to.iterdir()) == ["one.npy", "two.npy"]
    for path in to.iterdir():
        embedding = unpack_array(path.read_bytes())
        assert (embedding.shape, embedding.dtype.name) == ((256, 16, 16), "float16")
    assert "2/2 two.npy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "prompts",
    [
        ["--point", "100,90"],
        ["--point", "100,90", "--not-point", "10,10.5"],
        ["--box", "60,40,200,150"],
    ],
    ids=["a point", "two points", "a box"],
)
def test_prompts_become_a_mask_of_the_image_s_size(images, small_checkpoint, tmp_path, prompts):
    mask = tmp_path / "mask.png"
    files = ["--checkpoint", str(small_checkpoint), "--to", str(mask)]

    assert main(["predict", str(images / "one.png"), *files, *prompts]) == 0

    written = np.asarray(Image.open(mask))
    assert written.shape == (181, 258)
    assert set(np.unique(written)) == {0, 255}


def test_several_boxes_become_a_mask_each(images, small_checkpoint, tmp_path):
    files = ["--checkpoint", str(small_checkpoint), "--to", str(tmp_path / "mask.png")]
    image = str(images / "one.png")
    assert main(["predict", image, *files, *TWO_BOXES[2:]]) == 0

    assert main(["predict", image, *files, *TWO_BOXES]) == 0

    alone, first, second = (
        np.asarray(Image.open(tmp_path / name)) for name in ("mask.png", "mask-1.png", "mask-2.png")
    )
    assert (alone != second).mean() < 1e-4
    assert (alone != first).any()


def test_an_untrained_checkpoint_can_be_written(tmp_path, capsys):
    path = tmp_path / "model.safetensors"

    assert main(["untrained", "--variant", "vit_t", "--seed", "4", "--to", str(path)]) == 0

    assert Checkpoint(path).metadata.origin == "seed 4"


def test_a_checkpoint_of_somebody_s_becomes_ours(tmp_path, capsys):
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    state = sam_med2d.build("vit_t").state_dict()
    torch.save({"model": state}, theirs)
    options = ["--adapters", "drop", "--half"]

    assert main(["convert", str(theirs), "--to", str(ours), *options]) == 0

    said = capsys.readouterr().out
    assert said.startswith(f"{ours}: {digest_of_file(ours)}\n")
    assert "256 px: a SAM of vit_t at 256 px with adapters, adapters dropped" in said
    assert not Checkpoint(ours).metadata.adapters
    assert Checkpoint(ours).image_encoder()
    assert ours.stat().st_size < 0.4 * theirs.stat().st_size


def _results(path, *, digest, **changes):
    dice = {"dice": {"mean": 0.91234567, "low": None, "high": None}}
    figure = {"model": "m", "protocol": "box", "by": "collections", "measures": dice}
    clicks = {"model": "m", "by": "collections", "to_iou": {"85": {"mean": 4.5}}}
    content = {
        "models": {"m": {"digest": digest}},
        "figures": [figure, figure | {"by": "masks", "protocol": "1-point"}],
        "clicks": [clicks],
    }
    path.write_text(json.dumps(content | changes))
    return path


def test_what_an_evaluation_found_is_written_into_the_checkpoint(small_checkpoint, tmp_path):
    to, results = tmp_path / "to.safetensors", tmp_path / "results.json"
    _results(results, digest=digest_of_file(small_checkpoint))
    command = ["convert", str(small_checkpoint), "--to", str(to), "--evaluated", str(results)]

    assert main([*command, "--half"]) == 0

    before, after = Checkpoint(small_checkpoint), Checkpoint(to)
    assert after.metadata == before.metadata.model_copy(
        update={"metrics": {"box": 0.9123, "noc85": 4.5}}
    )
    assert after.image_encoder()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "says nothing of this file"),
        ({"models": None}, "holds no results of an evaluation"),
        ({"models": {"m": {}}}, "holds no results of an evaluation"),
    ],
)
def test_what_was_found_of_another_file_is_not(
    small_checkpoint, tmp_path, capsys, changes, sentence
):
    to, results = tmp_path / "to.safetensors", tmp_path / "results.json"
    _results(results, digest="0" * 64, **changes)
    command = ["convert", str(small_checkpoint), "--to", str(to), "--evaluated", str(results)]

    assert main(command) == 1
    assert sentence in capsys.readouterr().err
    assert not to.exists()


def test_a_file_that_cannot_be_converted_leaves_nothing(tmp_path, capsys):
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    theirs.write_text("no weights")

    assert main(["convert", str(theirs), "--to", str(ours)]) == 1

    assert capsys.readouterr().err.startswith("mlworker: the file is no checkpoint")
    assert not ours.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["embed", "{images}", "--checkpoint", "{images}/notes.txt"], "not a checkpoint of ours"),
        (["embed", "{images}", "--checkpoint", "{images}/none"], "none"),
        (["embed", "{empty}", "--checkpoint", "{model}"], "holds none of .png"),
        (["predict", "{images}/one.png", "--checkpoint", "{model}"], "a point or a box is needed"),
        (
            [
                "predict",
                "{images}/one.png",
                "--checkpoint",
                "{model}",
                "--point",
                "1,1",
                *TWO_BOXES,
            ],
            "points are of one object",
        ),
        (["predict", "{images}/notes.txt", "--checkpoint", "{model}", "--point", "1,1"], "notes"),
    ],
    ids=["no checkpoint", "no file", "no images", "no prompts", "points of many", "no image"],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    images, small_checkpoint, tmp_path, capsys, arguments, sentence
):
    (tmp_path / "empty").mkdir()
    named = {"images": images, "empty": tmp_path / "empty", "model": small_checkpoint}
    given = [argument.format(**named) for argument in arguments]

    status = main([*given, "--to", str(tmp_path / "out")])

    assert status == 1
    error = capsys.readouterr().err
    assert error.startswith("mlworker: ")
    assert sentence in error
