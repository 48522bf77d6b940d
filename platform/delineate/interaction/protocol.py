"""Messages of the workspace's socket, ``/ws/tasks/<task id>``. Run this module to print its schema.

Browser -> server: prompt, operation, prepare. Server -> browser: welcome, proposal, preparing,
prepared, saved, refused, changed. One prompt is in flight per socket; the latest waits, and an
answer that is no longer wanted is recognised by its ``request_id``. An operation is acknowledged by
``saved`` when it is durable; a client repeats what was not acknowledged after it reconnects.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import models_json_schema

from delineate.annotation.drafts import (
    DraftAction,
    DraftChanges,
    DraftState,
    Prompts,
    SealedProposal,
)
from mlworker.contract.messages import Digest, Identifier, Refinement, Timing

PROTOCOL_VERSION: Literal[1] = 1


class _Message(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )


class Prompt(_Message):
    """Show the model something on a slice; answered by proposal, preparing or refused."""

    kind: Literal["prompt"]
    request_id: Identifier
    slice_id: UUID
    label_id: UUID
    prompts: Prompts
    refine: Refinement | None


class Operation(_Message):
    """Change a draft; answered by saved or refused. ``base`` is the version it was made on."""

    kind: Literal["operation"]
    slice_id: UUID
    label_id: UUID
    client_id: UUID
    sequence: int = Field(ge=1)
    base: int = Field(ge=0)
    action: DraftAction
    changes: DraftChanges


class Prepare(_Message):
    """These slices are on screen or will be next: encode them first."""

    kind: Literal["prepare"]
    slice_ids: tuple[UUID, ...] = Field(min_length=1, max_length=64)


FromBrowser = Annotated[Prompt | Operation | Prepare, Field(discriminator="kind")]


class Welcome(_Message):
    """The session is open."""

    kind: Literal["welcome"] = "welcome"
    protocol_version: Literal[1] = PROTOCOL_VERSION
    model_digest: Digest
    may_annotate: bool


class Proposal(_Message):
    """The model's answer to a prompt."""

    kind: Literal["proposal"] = "proposal"
    request_id: Identifier
    slice_id: UUID
    label_id: UUID
    proposal: SealedProposal
    timing: Timing
    server_ms: float  # the whole time in the server, the worker's included


class Preparing(_Message):
    """The slice is being encoded, first in line; repeat the prompt when prepared names it."""

    kind: Literal["preparing"] = "preparing"
    request_id: Identifier
    slice_id: UUID


class Prepared(_Message):
    """These slices answer at once from now on."""

    kind: Literal["prepared"] = "prepared"
    slice_ids: tuple[UUID, ...]


class Saved(_Message):
    """The operation is durable."""

    kind: Literal["saved"] = "saved"
    client_id: UUID
    sequence: int
    slice_id: UUID
    label_id: UUID
    version: int


class Refused(_Message):
    """Something was not done, and why; the session goes on.

    With code ``stale_base``, ``current`` and ``version`` are the draft as it really stands.
    """

    kind: Literal["refused"] = "refused"
    code: str
    message: str
    request_id: Identifier | None = None
    client_id: UUID | None = None
    sequence: int | None = None
    current: DraftState | None = None
    version: int | None = None


class Changed(_Message):
    """Something beside the drafts changed; fetch it anew."""

    kind: Literal["changed"] = "changed"
    what: Literal["task", "revisions", "labels", "study_deleted", "membership"]


ToBrowser = Annotated[
    Welcome | Proposal | Preparing | Prepared | Saved | Refused | Changed,
    Field(discriminator="kind"),
]

from_browser: TypeAdapter[FromBrowser] = TypeAdapter(FromBrowser)
to_browser: TypeAdapter[ToBrowser] = TypeAdapter(ToBrowser)


def schema() -> dict[str, object]:
    """JSON schema of the protocol: both directions, and the definitions they share."""
    browser: list[type[BaseModel]] = [Prompt, Operation, Prepare]
    server: list[type[BaseModel]] = [
        Welcome,
        Proposal,
        Preparing,
        Prepared,
        Saved,
        Refused,
        Changed,
    ]
    # Serialization mode on both sides: whoever sends a message sends it whole.
    _, definitions = models_json_schema(
        [(model, "serialization") for model in (*browser, *server)],
        ref_template="#/$defs/{model}",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Protocol",
        "type": "object",
        "properties": {
            "from_browser": {"oneOf": [{"$ref": f"#/$defs/{m.__name__}"} for m in browser]},
            "to_browser": {"oneOf": [{"$ref": f"#/$defs/{m.__name__}"} for m in server]},
        },
        "$defs": definitions["$defs"],
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, sort_keys=True))
