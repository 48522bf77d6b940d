from __future__ import annotations

import math
from typing import Any

import pytest

from mlworker.training.progress import Progress
from mlworker.training.state import NotKept
from tests.mlworker.training.small_set import events, status

STEP: dict[str, Any] = {"epoch": 1, "of_steps": 10, "dice": 0.5, "learning_rate": 1e-4}


def test_steps_are_told_with_the_time_that_is_left(tmp_path):
    progress = Progress(tmp_path)

    progress.step(step=1, loss=2.0, took_s=3.0, **STEP)
    progress.step(step=2, loss=1.5, took_s=3.0, **STEP)

    told = events(tmp_path, named="step")
    assert [each["eta_s"] for each in told] == [27.0, 24.0]
    assert [each["loss"] for each in told] == [2.0, 1.5]
    assert status(tmp_path) == {
        "state": "running",
        "epoch": 1,
        "step": 2,
        "of_steps": 10,
        "loss": 1.5,
        "dice": 0.5,
        "eta_s": 24.0,
    }


def test_a_run_that_goes_on_adds_to_what_was_told(tmp_path):
    Progress(tmp_path).say("started")
    Progress(tmp_path).say("resumed", step=4)

    assert [each["event"] for each in events(tmp_path)] == ["started", "resumed"]


def test_what_is_no_number_is_told_as_nothing(tmp_path):
    Progress(tmp_path).step(step=1, loss=math.nan, took_s=1.0, **STEP)

    assert events(tmp_path)[0]["loss"] is None


def test_an_end_is_the_last_word_in_both_files(tmp_path):
    progress = Progress(tmp_path)

    progress.end("failed", code="NotFinite", message="the loss has become nan")

    assert status(tmp_path)["state"] == "failed"
    assert events(tmp_path)[-1]["code"] == "NotFinite"


def test_tensorboard_has_the_curves(tmp_path):
    progress = Progress(tmp_path)
    progress.step(step=1, loss=2.0, took_s=3.0, **STEP)
    progress.end("finished")

    (written,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in written.read_bytes()


def test_a_disk_without_room_for_a_line_is_named(tmp_path):
    progress = Progress(tmp_path)
    (tmp_path / "events.jsonl").symlink_to("/dev/full")

    with pytest.raises(NotKept, match="No space left"):
        progress.say("started")
    progress.end("failed", code="NotKept", message="no room")  # hides nothing behind its own error
