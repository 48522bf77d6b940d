"""The contract as JSON schema: `python -m mlworker.contract.schema` prints it, sorted."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from mlworker.contract.messages import (
    CONTRACT_VERSION,
    AddCheckpoint,
    CheckpointAdded,
    EncodeSlices,
    Failed,
    Message,
    NotPrepared,
    Segmented,
    SegmentSlice,
    SlicesEncoded,
)

# Everything that travels on its own, by its ``kind``.
MESSAGES: Final[dict[str, type[Message]]] = {
    "add_checkpoint": AddCheckpoint,
    "checkpoint_added": CheckpointAdded,
    "encode_slices": EncodeSlices,
    "failed": Failed,
    "not_prepared": NotPrepared,
    "segment_slice": SegmentSlice,
    "segmented": Segmented,
    "slices_encoded": SlicesEncoded,
}


def schema() -> dict[str, Any]:
    """One schema for all messages: any message of this version satisfies exactly one of them."""
    references, definitions = models_json_schema(
        [(model, "serialization") for model in MESSAGES.values()],
        title=f"mlworker contract {CONTRACT_VERSION}",
        ref_template="#/$defs/{model}",
    )
    return definitions | {
        "oneOf": [references[model, "serialization"] for model in MESSAGES.values()]
    }


def main() -> None:
    """Print the schema."""
    print(json.dumps(schema(), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
