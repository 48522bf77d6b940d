"""Fine-tuning through the front door, `mlworker train`: killed, stopped, refused, in processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlworker.cli import main
from mlworker.model.checkpoint import Checkpoint, digest_of_file, pack
from tests.mlworker.training.small_set import (
    events,
    status,
    write_manifest,
    write_set,
    write_settings,
)


def command(data: Path, checkpoint: Path, out: Path, *more: str) -> list[str]:
    settings = data.parent / "settings.json"
    if not settings.exists():
        write_settings(settings)
    files = ["--checkpoint", str(checkpoint), "--out", str(out), "--settings", str(settings)]
    return ["train", "--data", str(data), *files, *more]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, "-m", "mlworker.cli", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
    )


def steps_told(out: Path) -> int:
    told = events(out, named="step") if (out / "events.jsonl").exists() else []
    return int(told[-1]["step"]) if told else 0


def wait_for_step(out: Path, step: int, *, child: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 120
    while steps_told(out) < step:
        assert child is None or child.poll() is None, "the run has ended before"
        assert time.monotonic() < deadline, "the step did not come"
        time.sleep(0.02)


@pytest.fixture
def data(tmp_path):
    """Three images of two discs."""
    return write_set(tmp_path / "set", images=3)


@pytest.mark.parametrize("blend", [1.0, 0.5])
def test_a_killed_run_goes_on_to_the_same_bits(data, small_checkpoint, tmp_path, blend):
    write_settings(data.parent / "settings.json", epochs=2, blend=blend)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(data, small_checkpoint, whole)) == 0

    child = start(command(data, small_checkpoint, killed))
    wait_for_step(killed, 1 + time.time_ns() % 4, child=child)
    child.kill()
    child.communicate()
    assert status(killed)["state"] == "running"
    assert main(command(data, small_checkpoint, killed, "--resume")) == 0

    assert steps_told(whole) == steps_told(killed) == 6
    for name in ("last.safetensors", "best.safetensors"):
        assert digest_of_file(whole / name) == digest_of_file(killed / name)
    losses = {each["step"]: each["loss"] for each in events(killed, named="step")}
    assert losses == {each["step"]: each["loss"] for each in events(whole, named="step")}


def test_what_a_run_leaves(data, small_checkpoint, tmp_path):
    validation = write_set(tmp_path / "other", images=1, name="image2label_val.json")
    settings = write_settings(tmp_path / "settings.json", epochs=1, augment=True, balance=True)
    out = tmp_path / "out"
    arguments = ["--checkpoint", str(small_checkpoint), "--out", str(out), "--settings"]

    # Another folder of files than the list's, so that both can be named from one root.
    for path in validation.parent.iterdir():
        path.rename(data.parent / f"val_{path.name}")
    listed = json.loads((data.parent / f"val_{validation.name}").read_text())
    renamed = {f"val_{image}": [f"val_{m}" for m in masks] for image, masks in listed.items()}
    (data.parent / "val.json").write_text(json.dumps(renamed))
    lists = ["--data", str(data), "--validation", str(data.parent / "val.json")]
    assert main(["train", *lists, *arguments, str(settings)]) == 0

    told = [each["event"] for each in events(out)]
    assert told[0] == "started"
    assert told[-1] == "finished"
    (epoch,) = events(out, named="epoch")
    assert 0 <= epoch["validation_dice"] <= 1
    assert status(out)["best"] == epoch["validation_dice"]
    metadata = Checkpoint(out / "best.safetensors").metadata
    assert metadata.trained
    assert metadata.parent == digest_of_file(small_checkpoint)
    assert metadata.training_data == events(out, named="started")[0]["data"]
    assert metadata.metrics == {"validation_dice": epoch["validation_dice"]}
    assert any((out / "tensorboard").iterdir())


def test_a_run_that_is_asked_to_stop_ends_after_the_step_with_everything_kept(
    data, small_checkpoint, tmp_path
):
    write_settings(data.parent / "settings.json", epochs=40, keep_every_s=1000)
    out = tmp_path / "out"

    def ask() -> None:
        wait_for_step(out, 2)
        signal.raise_signal(signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    assert main(command(data, small_checkpoint, out)) == 128 + signal.SIGTERM
    asking.join()

    assert status(out)["state"] == "stopped"
    assert events(out, named="kept")[-1]["step"] == status(out)["step"] == steps_told(out)
    assert (out / "last.safetensors").exists()


def test_a_full_disk_ends_a_run_by_name_and_leaves_what_was_kept(data, small_checkpoint, tmp_path):
    write_settings(data.parent / "settings.json", most_steps=1)
    out = tmp_path / "out"
    assert main(command(data, small_checkpoint, out)) == 0
    kept = {name: digest_of_file(out / name) for name in ("last.state", "last.safetensors")}

    write_settings(data.parent / "settings.json", most_steps=2)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "from mlworker.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = command(data, small_checkpoint, out, "--resume")
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert "mlworker: " in ended.stderr
    assert "could not be written" in ended.stderr
    assert (status(out)["state"], status(out)["code"]) == ("failed", "NotKept")
    assert events(out)[-1]["event"] == "failed"
    assert {name: digest_of_file(out / name) for name in kept} == kept
    assert not list(out.glob("*.part"))


def test_a_loss_that_is_no_number_ends_a_run_by_name_and_leaves_what_was_kept(
    data, small_checkpoint, tmp_path, capsys
):
    write_settings(data.parent / "settings.json", most_steps=1)
    out = tmp_path / "out"
    assert main(command(data, small_checkpoint, out)) == 0
    good = digest_of_file(out / "last.safetensors")
    content = torch.load(out / "last.state", weights_only=True)
    for moments in content["state"]["trainer"]["moments"].values():
        moments["exp_avg"].fill_(torch.nan)
    torch.save(content, out / "last.state")

    write_settings(data.parent / "settings.json", most_steps=2)
    assert main(command(data, small_checkpoint, out, "--resume")) == 1

    assert "nan" in capsys.readouterr().err
    assert (status(out)["state"], status(out)["code"]) == ("failed", "NotFinite")
    assert digest_of_file(out / "last.safetensors") == good


def test_two_processes_learn_as_one_with_twice_the_batch(data, small_checkpoint, tmp_path):
    write_set(data.parent, images=4)
    one, two = tmp_path / "one", tmp_path / "two"
    write_settings(data.parent / "settings.json", epochs=2, images=2, threads=1)
    assert main(command(data, small_checkpoint, one)) == 0

    write_settings(data.parent / "settings.json", epochs=2, images=1, threads=1)
    arguments = command(data, small_checkpoint, two)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [sys.executable, *torchrun, "-m", "mlworker.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    curves = [
        [(each["step"], each["loss"], each["dice"]) for each in events(out, named="step")]
        for out in (one, two)
    ]
    assert len(curves[0]) == 4
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)
    weights = [
        Checkpoint(out / "last.safetensors").mask_decoder().state_dict() for out in (one, two)
    ]
    apart = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    assert apart < 5e-4  # of 8 moves of 1e-4 each: Adam makes rounding visible in still weights


def test_fresh_adapters_say_nothing_at_first(data, small_checkpoint, tmp_path):
    parent = Checkpoint(small_checkpoint)
    parts = {
        f"{name}.{key}": value
        for name in ("image_encoder", "prompt_encoder", "mask_decoder")
        for key, value in getattr(parent, name)().state_dict().items()
        if ".Adapter." not in key
    }
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(pack(parts, parent.metadata.model_copy(update={"adapters": False})))
    losses = {}
    for trainable in ("adapters", "decoder"):
        out = tmp_path / trainable
        write_settings(
            data.parent / "settings.json", trainable=trainable, corrections=0, most_steps=1
        )
        assert main(command(data, plain, out)) == 0
        losses[trainable] = events(out, named="step")[0]["loss"]

    assert losses["adapters"] == pytest.approx(losses["decoder"], rel=1e-5)
    assert Checkpoint(tmp_path / "adapters/last.safetensors").metadata.adapters
    assert not Checkpoint(tmp_path / "decoder/last.safetensors").metadata.adapters


def test_a_manifest_can_be_trained_on(small_checkpoint, tmp_path):
    path = write_manifest(tmp_path / "set", splits=["train", "val"], subjects=["a", "b"])
    settings = write_settings(tmp_path / "settings.json", epochs=1)
    files = ["--checkpoint", str(small_checkpoint), "--out", str(tmp_path / "out")]

    assert main(["train", "--manifest", str(path), *files, "--settings", str(settings)]) == 0

    assert "validation_dice" in events(tmp_path / "out", named="epoch")[0]


def test_a_run_is_not_overwritten_nor_gone_on_with_otherwise(
    data, small_checkpoint, tmp_path, capsys
):
    out = tmp_path / "out"
    write_settings(data.parent / "settings.json", most_steps=1)
    assert main(command(data, small_checkpoint, out)) == 0

    assert main(command(data, small_checkpoint, out)) == 1
    assert "holds a run: resume it" in capsys.readouterr().err
    write_settings(data.parent / "settings.json", seed=5)
    assert main(command(data, small_checkpoint, out, "--resume")) == 1
    assert "is of another run, which differs in settings" in capsys.readouterr().err


def spoil_mask(folder: Path) -> None:
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(folder / "image_1_left_000.png")


def leak_subject(folder: Path) -> None:
    rows = ["image,mask,label,modality,collection,subject"]
    for list_, subjects in (("image2label_train.json", "abc"), ("val.json", "b")):
        listed = json.loads((folder / list_).read_text())
        for (image, masks), subject in zip(listed.items(), subjects, strict=True):
            rows += [f"{image},{mask},disc,CT,discs,{subject}" for mask in masks]
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("spoil", "settings", "code", "sentence"),
    [
        (spoil_mask, {}, "UnusableFiles", "EmptyMask"),
        (leak_subject, {}, "SubjectInTwoSplits", "1 subjects are in training and in validation"),
        (lambda _: None, {"balance": True}, "SingleSample", "left"),
    ],
    ids=["an empty mask", "a leak", "a single sample"],
)
def test_data_that_cannot_be_learnt_from_end_a_run_before_it_begins(
    data, small_checkpoint, tmp_path, capsys, spoil, settings, code, sentence
):
    if settings:  # one image, so one sample of each label
        listed = json.loads(data.read_text())
        data.write_text(json.dumps({"image_0.png": listed["image_0.png"]}))
    for path in list(data.parent.glob("image_0*")):
        (data.parent / f"val_{path.name}").write_bytes(path.read_bytes())
    (data.parent / "val.json").write_text(
        json.dumps({"val_image_0.png": ["val_image_0_left_000.png"]})
    )
    write_settings(data.parent / "settings.json", **settings)
    spoil(data.parent)
    out = tmp_path / "out"

    validation = ["--validation", str(data.parent / "val.json")]
    assert main(command(data, small_checkpoint, out, *validation)) == 1

    assert sentence in capsys.readouterr().err
    assert (status(out)["state"], status(out)["code"]) == ("failed", code)
    assert not (out / "last.state").exists()
