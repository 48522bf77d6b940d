"""How a model is fine-tuned: every number, with its reason.

The defaults are the published procedure (SAM-Med2D, arXiv 2308.16184, section 4.1, and its code).
What can be said only of a machine (threads, how often to keep) changes no weight, but for the
rounding of other threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Trainable = Literal["adapters", "decoder", "everything"]
Precision = Literal["float32", "bfloat16"]


class SettingsError(ValueError):
    """Settings that cannot be read, or do not fit each other."""


class Settings(BaseModel):
    """Every number of a fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # What learns. Published: of the image encoder only the adapters, because a few per cent of a
    # large set's knowledge should not overwrite what SAM knows. ``everything`` is the paper's
    # rival, FT-SAM; ``decoder`` costs a fraction and needs the least data.
    trainable: Trainable = "adapters"
    # Images of one step and process, as the published code; more does not fit small machines.
    images: int = Field(default=2, ge=1)
    # Masks of each image, drawn with replacement: the encoder's work is shared by all of them.
    masks: int = Field(default=5, ge=1)
    # A step begins with a box or a point, by equal chance: users begin with either.
    box_share: float = Field(default=0.5, ge=0, le=1)
    # After it the decoder alone is corrected so often, as a user goes on clicking.
    corrections: int = Field(default=8, ge=0)
    # By so many points where it was wrong, drawn anew for every correction: one in the beginning
    # of a session, more when a user is patient.
    points: tuple[int, ...] = Field(default=(1, 3, 5, 9), min_length=1)

    # Adam's, constant within an epoch. Small: what is tuned knows something already.
    learning_rate: float = Field(default=1e-4, gt=0)
    # Through the whole set so often; halved after these epochs, when the loss no longer falls.
    epochs: int = Field(default=12, ge=1)
    halved_after: tuple[int, ...] = (7, 10)
    # Steps over which the learning rate rises from nothing; published: none. A hundred or so spare
    # a model whose adapters are fresh.
    warm_up: int = Field(default=0, ge=0)
    # How far the weights that are kept go from those it began with to those that were learnt.
    # Part of the way after little data keeps most of the gain and loses less of what was known
    # before (weight-space ensembles, arXiv 2109.01903).
    blend: float = Field(default=1.0, gt=0, le=1)
    # Ends earlier, after so many steps: a night has an end.
    most_steps: int | None = Field(default=None, ge=1)
    # Gradients of so many times ``images`` before the optimiser moves: a larger batch in the same
    # memory. The published losses are taken over each part of ``images`` by itself.
    accumulate: int = Field(default=1, ge=1)

    # Products in bfloat16 cost half and less where the machine has it; weights, their gradients'
    # sums, Adam's moments, prompts and losses stay in float32.
    precision: Precision = "float32"
    # Published: images as they are. Sets of less than some thousand images need it.
    augment: bool = False
    # Published: every image once an epoch. Balanced, modalities come equally often, and labels
    # equally often within each, because ten thousand livers would teach little but livers.
    balance: bool = False
    seed: int = Field(default=0, ge=0)

    # None: torch's own choice, a thread per core. Another number rounds differently.
    threads: int | None = Field(default=None, ge=1)
    # Seconds between kept states: what a power cut may cost.
    keep_every_s: float = Field(default=300.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if any(count < 1 for count in self.points):
            raise ValueError("points: a correction needs at least one point")
        if any(epoch < 1 for epoch in self.halved_after):
            raise ValueError("halved_after: epochs are counted from 1")
        return self

    def rate(self, *, epoch: int, step: int) -> float:
        """The learning rate of a step (both from 0)."""
        rate = self.learning_rate * 0.5 ** sum(epoch >= after for after in self.halved_after)
        return rate * min(1.0, (step + 1) / self.warm_up) if self.warm_up else rate


# A run may go on with these changed: they decide when and where, not what is learnt.
FREE_TO_CHANGE = frozenset({"threads", "keep_every_s", "most_steps"})


def read_settings(path: Path) -> Settings:
    """Settings from JSON, what is not named by default; raises SettingsError."""
    try:
        return Settings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SettingsError(f"{path} holds no settings: {error}") from error
