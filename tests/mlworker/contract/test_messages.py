"""The contract's examples: what must be understood, what must be refused, and why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from pydantic import ValidationError

from mlworker.contract.messages import AwaitedCommand, Command, Point, Reply, reply_adapter
from mlworker.contract.schema import MESSAGES, schema

TESTS = Path(__file__).parents[2]
GOLDEN = sorted((TESTS / "golden/contract").glob("*.json"))
INVALID = sorted((TESTS / "invalid/contract").glob("*.json"))


def _name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", GOLDEN, ids=_name)
def test_a_golden_example_is_understood_and_written_as_it_stands(path):
    written = json.loads(path.read_text())

    message = MESSAGES[path.stem.split(".")[0]].model_validate_json(path.read_text())

    assert json.loads(message.model_dump_json()) == written
    jsonschema.validate(written, schema())


@pytest.mark.parametrize("path", INVALID, ids=_name)
def test_an_invalid_example_is_refused_for_its_reason(path):
    example = json.loads(path.read_text())
    assert example["reason"].endswith(".")

    with pytest.raises(ValidationError) as refusal:
        MESSAGES[path.stem.split(".")[0]].model_validate_json(json.dumps(example["message"]))

    assert [(list(e["loc"]), e["type"]) for e in refusal.value.errors()] == [
        (example["where"], example["error"])
    ]


def test_every_kind_has_an_example():
    assert {path.stem.split(".")[0] for path in GOLDEN} == MESSAGES.keys()
    assert all(MESSAGES[kind].model_fields["kind"].default == kind for kind in MESSAGES)


def test_every_reply_can_be_told_from_the_others():
    replies = get_args(get_args(Reply)[0])
    for path in GOLDEN:
        kind = MESSAGES[path.stem.split(".")[0]]
        if kind in replies:
            assert type(reply_adapter.validate_json(path.read_text())) is kind


def test_every_command_says_its_task_and_queue():
    commands = [kind for kind in MESSAGES.values() if issubclass(kind, Command)]

    assert {(kind.task, kind.queue) for kind in commands} == {
        ("mlworker.segment_slice", "interactive"),
        ("mlworker.encode_slices", "encode"),
        ("mlworker.add_checkpoint", "train"),
        ("mlworker.fine_tune", "train"),
        ("mlworker.evaluate", "train"),
        ("mlworker.score_slices", "encode"),
    }
    assert all("expires_at" in k.model_fields for k in commands if issubclass(k, AwaitedCommand))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value):
    with pytest.raises(ValidationError, match="finite"):
        Point(x=value, y=0, positive=True)


def test_the_schema_is_the_one_that_was_reviewed():
    """A change of the contract shows in this file; one that old messages do not survive needs
    another CONTRACT_VERSION. `python -m mlworker.contract.schema` prints it."""
    reviewed = json.loads((TESTS / "golden/contract.schema.json").read_text())

    assert json.loads(json.dumps(schema())) == reviewed
