"""Messages between the server and the worker: commands, replies, events.

Every message is frozen, forbids what it does not know, and carries its ``kind`` and the contract's
version; another version is refused. Coordinates are slice pixels, (x, y) = (column, row); a box is
x0 y0 = first column and row, x1 y1 = last + 1. Commands name their Celery task and queue. A
command that is awaited (``reply_to``) is answered on that Redis list; one that is not is answered
by an event, sent as the Celery task ``EVENT_TASK`` on the queue ``server``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mlworker.contract.masks import RunLengths

CONTRACT_VERSION: Literal[1] = 1
EVENT_TASK = "delineate.receive_worker_event"
EVENT_QUEUE = "server"
# Slices an encode command may carry: on CPU more gains nothing and delays what is open now.
MAX_BATCH = 4

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[0-9a-f-]{32,36}$")]
Variant = Literal["vit_b", "vit_l", "vit_h", "vit_t", "hybrid_t"]
# New ones that change nothing until they are trained, those that the file has, or none.
AdapterChoice = Literal["fresh", "keep", "drop"]


class Message(BaseModel):
    """Base of everything that travels."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )


class Window(Message):
    """A linear VOI window in modality units (DICOM PS3.3 C.11.2.1.2)."""

    centre: float
    width: float = Field(gt=0)


class Point(Message):
    """A click in slice pixels."""

    x: float
    y: float
    positive: bool


class Box(Message):
    """A box in slice pixels: first column and row, last column and row + 1."""

    x0: float
    y0: float
    x1: float
    y1: float


class PreviousLogits(Message):
    """Refine the model's own last proposal, by its low-resolution logits."""

    kind: Literal["previous_logits"] = "previous_logits"
    proposal_id: Identifier


class EditedMask(Message):
    """Refine a mask that was corrected by hand."""

    kind: Literal["edited_mask"] = "edited_mask"
    mask: RunLengths


Refinement = Annotated[PreviousLogits | EditedMask, Field(discriminator="kind")]


class SliceImage(Message):
    """A slice as the worker may know it: pixels and how to prepare them; no patient, no project.

    ``slope`` and ``intercept`` turn stored values into modality units (PS3.3 C.11.1.1.2);
    ``inverted`` is MONOCHROME1. ``window`` is absent for colour.
    """

    pixels_key: str
    pixels_digest: Digest
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    slope: float = 1.0
    intercept: float = 0.0
    inverted: bool = False
    window: Window | None = None
    preparation: Literal[1] = 1


class Command(Message):
    """Something the server asks of the worker."""

    task: ClassVar[str]
    queue: ClassVar[str]
    contract_version: Literal[1] = CONTRACT_VERSION


class AwaitedCommand(Command):
    """A command somebody waits for: answered on the list ``reply_to`` until ``expires_at``."""

    request_id: Identifier
    reply_to: str
    sent_at: float  # seconds since the epoch
    expires_at: float


class SegmentSlice(AwaitedCommand):
    """Prompts on a prepared slice -> a mask."""

    task: ClassVar[str] = "mlworker.segment_slice"
    queue: ClassVar[str] = "interactive"
    kind: Literal["segment_slice"] = "segment_slice"
    model_digest: Digest
    image: SliceImage
    points: tuple[Point, ...] = ()
    box: Box | None = None
    refine: Refinement | None = None


class FromSeed(Message):
    """Random weights, the same for the same seed."""

    kind: Literal["seed"] = "seed"
    variant: Variant
    seed: int = Field(ge=0)


class FromUpload(Message):
    """A file of somebody's under the contract's ``upload_key``, which the worker takes away.

    It is ours, or one that `mlworker convert` reads; ``adapters`` as that command understands it.
    """

    kind: Literal["uploaded"] = "uploaded"
    upload_id: Identifier
    adapters: AdapterChoice | None = None


class FromPackage(Message):
    """A model that comes with the worker's own package."""

    kind: Literal["shipped"] = "shipped"
    name: Literal["default"] = "default"


class AddCheckpoint(AwaitedCommand):
    """Bring a model into the store."""

    task: ClassVar[str] = "mlworker.add_checkpoint"
    queue: ClassVar[str] = "train"
    kind: Literal["add_checkpoint"] = "add_checkpoint"
    source: Annotated[FromSeed | FromUpload | FromPackage, Field(discriminator="kind")]


class EncodeItem(Message):
    """One slice to encode; ``encoding_id`` is the server's row and comes back in the event."""

    encoding_id: Identifier
    image: SliceImage


class EncodeSlices(Command):
    """Make embeddings; safe to send twice, what exists is not made again."""

    task: ClassVar[str] = "mlworker.encode_slices"
    queue: ClassVar[str] = "encode"
    kind: Literal["encode_slices"] = "encode_slices"
    model_digest: Digest
    items: tuple[EncodeItem, ...] = Field(min_length=1, max_length=MAX_BATCH)


class Timing(Message):
    """Where a prompt's time went, in milliseconds."""

    queue_ms: float
    load_ms: float
    encode_ms: float
    decode_ms: float
    total_ms: float


class Segmented(Message):
    """A proposal. ``proposal_id`` names its logits for the next refinement."""

    kind: Literal["segmented"] = "segmented"
    contract_version: Literal[1] = CONTRACT_VERSION
    request_id: Identifier
    proposal_id: Identifier
    mask: RunLengths
    predicted_iou: float
    model_digest: Digest
    timing: Timing


class NotPrepared(Message):
    """The slice has no embedding for this model yet."""

    kind: Literal["not_prepared"] = "not_prepared"
    contract_version: Literal[1] = CONTRACT_VERSION
    request_id: Identifier


class CheckpointAdded(Message):
    """The model is in the store under ``checkpoint_key(digest)``; what it says of itself.

    ``parent`` is the digest of the file that it was made from, as far as there was one.
    """

    kind: Literal["checkpoint_added"] = "checkpoint_added"
    contract_version: Literal[1] = CONTRACT_VERSION
    request_id: Identifier
    digest: Digest
    variant: Variant
    image_size: int
    adapters: bool
    preparation: Literal[1, 2]
    trained: bool
    origin: str  # in words
    parent: Digest | None = None
    metrics: dict[str, float] = {}


FailureCode = Literal[
    "refinement_expired",  # the logits are older than ten minutes
    "prompt_empty",  # neither point, box nor mask
    "prompt_outside",  # a point or box that does not touch the slice
    "artifact_missing",  # pixels or checkpoint are not in the store
    "artifact_invalid",  # they are, and are not what they should be
    "checkpoint_missing",  # nothing was uploaded under that name, or nothing is shipped
    "checkpoint_refused",  # a file that is no checkpoint, or one of another model; the message says
    "message_invalid",  # the command does not parse, or is of another contract version
    "worker_failed",  # anything else; the worker's log has the details
]


class Failed(Message):
    """The command could not be carried out."""

    kind: Literal["failed"] = "failed"
    contract_version: Literal[1] = CONTRACT_VERSION
    request_id: Identifier
    code: FailureCode
    message: str


Reply = Annotated[Segmented | NotPrepared | CheckpointAdded | Failed, Field(discriminator="kind")]


class EncodedSlice(Message):
    """The fate of one slice of an EncodeSlices: ``code`` is None when its embedding is stored."""

    encoding_id: Identifier
    code: FailureCode | None = None
    message: str = ""


class SlicesEncoded(Message):
    """An EncodeSlices has ended."""

    kind: Literal["slices_encoded"] = "slices_encoded"
    contract_version: Literal[1] = CONTRACT_VERSION
    model_digest: Digest
    slices: tuple[EncodedSlice, ...]


Event = SlicesEncoded

reply_adapter: TypeAdapter[Reply] = TypeAdapter(Reply)
event_adapter: TypeAdapter[Event] = TypeAdapter(Event)
