"""The same examples that the browser's tests read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from delineate.interaction.protocol import from_browser, schema, to_browser

EXAMPLES = Path(__file__).parents[2]
GOLDEN = sorted((EXAMPLES / "golden" / "socket").glob("*.json"))
INVALID = sorted((EXAMPLES / "invalid" / "socket").glob("*.json"))
KINDS = {"from_browser": from_browser, "to_browser": to_browser}


def test_every_kind_of_message_has_an_example() -> None:
    described = {
        definition["properties"]["kind"]["const"]
        for definition in schema()["$defs"].values()  # type: ignore[attr-defined]
        if "kind" in definition.get("properties", {})
    }
    shown = {json.loads(path.read_text())["kind"] for path in GOLDEN}

    assert shown == described - {"previous_logits", "edited_mask"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_message_is_read_and_written_back_as_it_was(path: Path) -> None:
    text = path.read_text()
    adapter = (
        from_browser
        if json.loads(text)["kind"] in ("prompt", "operation", "prepare")
        else (to_browser)
    )

    message = adapter.validate_json(text)

    assert json.loads(message.model_dump_json(exclude_unset=True)) == json.loads(text)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_message_is_refused(path: Path) -> None:
    for adapter in (from_browser, to_browser):
        with pytest.raises(ValidationError):
            adapter.validate_json(path.read_text())
