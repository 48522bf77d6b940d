"""Messages of the loop that learns: fine-tune, evaluate, score slices, and what comes of them.

A run works on a learning set: accepted masks with the images that they are of, which the server
freezes, stores under the contract's ``learning_set_key`` and names with its digest. No command of
these is awaited: each is answered by events, and sent again when its row has been silent, so that
whatever ends (worker, broker, machine) a run goes on from what it last kept.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from mlworker.contract.manifest import SHARED_SUBJECT, FileKey
from mlworker.contract.masks import RunLengths
from mlworker.contract.messages import (
    CONTRACT_VERSION,
    Command,
    Digest,
    FailureCode,
    Identifier,
    Message,
    SliceImage,
    Variant,
)

# The server's task for what the worker tells of these commands, on its queue ``server``.
LEARNING_EVENT_TASK: Final = "delineate.receive_learning_event"
# Slices a scoring command may carry: some seconds, between which what is open now is encoded.
MAX_SCORED: Final = 16
MOST_CLICKS: Final = 20

Part = Literal["train", "held_out"]
Trainable = Literal["adapters", "decoder", "everything"]


class LearningMask(Message):
    """An accepted mask, by the revision that it is."""

    revision_id: Identifier
    label: str = Field(min_length=1)
    mask: RunLengths


class LearningImage(Message):
    """A slice with its accepted masks; ``subject`` is a pseudonym."""

    slice_id: Identifier
    image: SliceImage
    modality: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    part: Part
    masks: tuple[LearningMask, ...] = Field(min_length=1)


class LearningSet(Message):
    """All of it; no subject may be in both parts, or what is learnt would judge itself."""

    kind: Literal["learning_set"] = "learning_set"
    contract_version: Literal[1] = CONTRACT_VERSION
    items: tuple[LearningImage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts_by_subject(self) -> LearningSet:
        part_of: dict[str, Part] = {}
        for item in self.items:
            if part_of.setdefault(item.subject, item.part) != item.part:
                raise PydanticCustomError(
                    SHARED_SUBJECT,
                    "subject {subject} is trained on and held out",
                    {"subject": item.subject},
                )
        return self


class StoredSet(Message):
    """Where a learning set lies, and the SHA-256 of its bytes."""

    key: FileKey
    digest: Digest


class Recipe(Message):
    """What may be chosen of a fine-tuning; everything else is as published.

    The defaults are for a few dozen slices: see docs/learning.md for what they give.
    """

    trainable: Trainable = "everything"
    epochs: int = Field(default=40, ge=1, le=1000)
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    halved_after: tuple[int, ...] = ()
    warm_up: int = Field(default=20, ge=0)
    # How far the kept weights go from the parent's to those that were learnt.
    blend: float = Field(default=0.75, gt=0, le=1)
    most_steps: int | None = Field(default=None, ge=1)
    images: int = Field(default=2, ge=1, le=64)  # of a step
    masks: int = Field(default=5, ge=1, le=64)  # of each image, drawn with replacement
    corrections: int = Field(default=8, ge=0, le=64)  # of the decoder, after each step's first
    augment: bool = True
    balance: bool = False
    seed: int = Field(default=0, ge=0)


class FineTune(Command):
    """Fine-tune a model on the part of a set that is for training.

    Safe to send twice: a run that is under way goes on, one that was cut off resumes from the state
    it last kept. It stops, keeping its state, when something lies under ``stop_key(run_id)``, and
    ends with what it has after ``budget_s`` seconds of all its attempts.
    """

    task: ClassVar[str] = "mlworker.fine_tune"
    queue: ClassVar[str] = "train"
    kind: Literal["fine_tune"] = "fine_tune"
    run_id: Identifier
    attempt: int = Field(ge=1)
    parent_digest: Digest
    data: StoredSet
    recipe: Recipe
    budget_s: float | None = Field(default=None, gt=0)


class Evaluate(Command):
    """Judge models on one part of a set, all with the same prompts; safe to send twice.

    Each mask is asked for by its box, and by clicks (the innermost pixel of the largest region that
    is wrong, again and again), as `mlworker evaluate` does.
    """

    task: ClassVar[str] = "mlworker.evaluate"
    queue: ClassVar[str] = "train"
    kind: Literal["evaluate"] = "evaluate"
    evaluation_id: Identifier
    attempt: int = Field(ge=1)
    model_digests: tuple[Digest, ...] = Field(min_length=1, max_length=2)
    data: StoredSet
    part: Part = "held_out"
    clicks: int = Field(default=MOST_CLICKS, ge=1, le=MOST_CLICKS)


class ScoreItem(Message):
    """One slice to score; it has an embedding of the command's model."""

    slice_id: Identifier
    image: SliceImage


class ScoreSlices(Command):
    """Say how sure a model is of slices that nobody has delineated; safe to send twice."""

    task: ClassVar[str] = "mlworker.score_slices"
    queue: ClassVar[str] = "encode"
    kind: Literal["score_slices"] = "score_slices"
    ranking_id: Identifier
    model_digest: Digest
    items: tuple[ScoreItem, ...] = Field(min_length=1, max_length=MAX_SCORED)


class TrainingProgress(Message):
    """How far a run has come; sent every few seconds, and as a sign of life before its first step.

    ``loss`` and ``dice`` are means over the steps since the event before. ``validation_dice`` comes
    with the end of an epoch.
    """

    kind: Literal["training_progress"] = "training_progress"
    contract_version: Literal[1] = CONTRACT_VERSION
    run_id: Identifier
    attempt: int
    epoch: int = 0
    step: int = 0
    of_steps: int = 0
    loss: float | None = None
    dice: float | None = None
    eta_s: float | None = None


class NewCheckpoint(Message):
    """A model that a run has put into the store under ``checkpoint_key(digest)``."""

    digest: Digest
    variant: Variant
    image_size: int
    adapters: bool
    preparation: Literal[1, 2]
    origin: str
    parent: Digest
    training_data: str
    code_version: str


class TrainingEnded(Message):
    """A run has ended; ``checkpoint`` is there when it has finished.

    ``stopped``: somebody wanted it, and its state is kept. ``failed``: ``message`` says why, and
    sending it again would fail again.
    """

    kind: Literal["training_ended"] = "training_ended"
    contract_version: Literal[1] = CONTRACT_VERSION
    run_id: Identifier
    attempt: int
    state: Literal["finished", "stopped", "failed"]
    code: str = ""
    message: str = ""
    steps: int = 0
    seconds: float = 0.0
    checkpoint: NewCheckpoint | None = None


class EvaluatedMask(Message):
    """What one model made of one mask. ``dice`` and ``mask`` are its answer to the box."""

    revision_id: Identifier
    slice_id: Identifier
    model_digest: Digest
    label: str
    subject: str
    dice: float
    mask: RunLengths
    dice_after: tuple[float, ...]  # each click


class EvaluationResults(Message):
    """An evaluation's rows, stored under ``evaluation_key``."""

    kind: Literal["evaluation_results"] = "evaluation_results"
    contract_version: Literal[1] = CONTRACT_VERSION
    rows: tuple[EvaluatedMask, ...]
    excluded: int = 0  # masks that could not be evaluated


class EvaluationProgress(Message):
    """A sign of life: images that are done, of all, over all models."""

    kind: Literal["evaluation_progress"] = "evaluation_progress"
    contract_version: Literal[1] = CONTRACT_VERSION
    evaluation_id: Identifier
    attempt: int
    done: int
    of: int


class EvaluationEnded(Message):
    """An evaluation has ended: its results are stored, or ``code`` says why not."""

    kind: Literal["evaluation_ended"] = "evaluation_ended"
    contract_version: Literal[1] = CONTRACT_VERSION
    evaluation_id: Identifier
    attempt: int
    code: str = ""
    message: str = ""


class SliceScore(Message):
    """What a model thinks of a slice, from a grid of points asked one by one; all within 0 and 1.

    ``disagreement`` is one less the mean IoU of the three candidate masks, ``instability`` one less
    the mean IoU of the mask with those of points moved by a few pixels; ``features`` is the
    embedding's mean over its places, 256 float16 in base64. With ``code`` there is nothing else.
    """

    slice_id: Identifier
    predicted_iou: float = 0.0
    disagreement: float = 0.0
    instability: float = 0.0
    features: str = ""
    code: FailureCode | Literal["not_prepared"] | None = None
    message: str = ""


class SlicesScored(Message):
    """A ScoreSlices has ended."""

    kind: Literal["slices_scored"] = "slices_scored"
    contract_version: Literal[1] = CONTRACT_VERSION
    ranking_id: Identifier
    model_digest: Digest
    slices: tuple[SliceScore, ...]


LearningEvent = Annotated[
    TrainingProgress | TrainingEnded | EvaluationProgress | EvaluationEnded | SlicesScored,
    Field(discriminator="kind"),
]

learning_event_adapter: TypeAdapter[LearningEvent] = TypeAdapter(LearningEvent)
