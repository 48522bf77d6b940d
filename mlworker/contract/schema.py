"""The contract as JSON schema: `python -m mlworker.contract.schema` prints it, sorted."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from mlworker.contract.learning import (
    Evaluate,
    EvaluationEnded,
    EvaluationProgress,
    EvaluationResults,
    FineTune,
    LearningSet,
    ScoreSlices,
    SlicesScored,
    TrainingEnded,
    TrainingProgress,
)
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
    "evaluate": Evaluate,
    "evaluation_ended": EvaluationEnded,
    "evaluation_progress": EvaluationProgress,
    "evaluation_results": EvaluationResults,
    "failed": Failed,
    "fine_tune": FineTune,
    "learning_set": LearningSet,
    "not_prepared": NotPrepared,
    "score_slices": ScoreSlices,
    "segment_slice": SegmentSlice,
    "segmented": Segmented,
    "slices_encoded": SlicesEncoded,
    "slices_scored": SlicesScored,
    "training_ended": TrainingEnded,
    "training_progress": TrainingProgress,
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
