"""What a model is to learn from: a frozen list of images with their masks, split by subject.

The server freezes it; files are named by object key, or by a path relative to the manifest's
folder, and are checked against their digests before anything is learnt.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from mlworker.contract.messages import CONTRACT_VERSION, Digest, Message, Window

SHARED_SUBJECT: Final = "shared_subject"  # the type of that error

Split = Literal["train", "val", "test"]
# Relative and without a way up: no part begins with a dot, so no file outside can be named.
FileKey = Annotated[str, Field(pattern=r"^[^./\\][^/\\]*(/[^./\\][^/\\]*)*$", max_length=1000)]


class StoredFile(Message):
    """A file and the SHA-256 of its bytes."""

    key: FileKey
    digest: Digest


class TrainingMask(Message):
    """One binary mask: what is not zero belongs to the structure."""

    file: StoredFile
    label: str = Field(min_length=1)


class TrainingImage(Message):
    """An image with its masks; ``subject`` is a pseudonym."""

    image: StoredFile
    window: Window | None = None  # in stored values; None: all of them, or 8 bits as they are
    masks: tuple[TrainingMask, ...] = Field(min_length=1)
    modality: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    split: Split


class TrainingManifest(Message):
    """All of it; no subject may be in two splits, or what is learnt would judge itself."""

    kind: Literal["training_manifest"] = "training_manifest"
    contract_version: Literal[1] = CONTRACT_VERSION
    items: tuple[TrainingImage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _splits_by_subject(self) -> TrainingManifest:
        split_of: dict[str, Split] = {}
        for item in self.items:
            if split_of.setdefault(item.subject, item.split) != item.split:
                raise PydanticCustomError(
                    SHARED_SUBJECT,
                    "subject {subject} is in {one} and in {other}",
                    {"subject": item.subject, "one": split_of[item.subject], "other": item.split},
                )
        return self
