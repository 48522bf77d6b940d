"""Objects that come with images and are kept beside them: stored, known again, made rows.

A reference belongs to its study and to nobody's work: it goes in by itself, whatever becomes of
others of its series, and a study may be there for references alone until its images come.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from delineate import storage
from delineate.studies import kinds
from delineate.studies.archive import Entry
from delineate.studies.models import Reference, Study
from delineate.studies.reader import ReadReference
from delineate.studies.reading import Described, ReferenceHead
from mlworker.contract.artifacts import study_prefix

_CONTOURS: Final = ("30060039", "30060020")  # with the list of what they outline
_HELD: Final = " Its pixels may show a name: only project leads can have it."


@dataclass(frozen=True)
class StoredReference:
    """What an upload brings of a reference, its pixels stored."""

    entry: Entry
    id: uuid.UUID
    series_uid: str
    sop_uid: str
    head: ReferenceHead
    key: str  # "" where it has no pixels
    digest: str

    def take_back(self) -> None:
        """Remove the pixels of what does not go in."""
        if self.key:
            storage.delete(self.key)


def sentence_of(sop_class_uid: str, *, is_held: bool) -> str:
    """What a report says of a reference that was kept."""
    return kinds.kind_of(sop_class_uid).sentence + (_HELD if is_held else "")


def digest_of(read: ReadReference) -> str:
    """Equal for files that say the same: by their pixels, as of images, or by their contours."""
    if read.head.pixels:
        return hashlib.sha256(read.pixels).hexdigest()
    content = [read.head.header.get(tag) for tag in _CONTOURS]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def id_of(upload_id: uuid.UUID, described: Described) -> uuid.UUID:
    """Equal in every attempt at an upload."""
    return uuid.uuid5(upload_id, f"{described.series_uid}/{described.sop_uid}/reference")


def store(
    entry: Entry, described: Described, read: ReadReference, *, id: uuid.UUID, study_id: uuid.UUID
) -> StoredReference:
    """Put a reference's pixels where its study's lie."""
    key = f"{study_prefix(str(study_id))}{id}.pixels" if read.head.pixels else ""
    if key:
        storage.put(key, read.pixels)
    return StoredReference(
        *(entry, id, described.series_uid, described.sop_uid, read.head, key, digest_of(read))
    )


def there_is(study_id: uuid.UUID, described: Described) -> Reference | None:
    """The reference of those UIDs that a study has."""
    return Reference.objects.filter(
        study=study_id, series_uid=described.series_uid, sop_instance_uid=described.sop_uid
    ).first()


def have_come_meanwhile(study: Study, stored: Iterable[StoredReference]) -> bool:
    """Whether somebody else has brought one of them to a study that is locked now."""
    there = set(study.references.values_list("series_uid", "sop_instance_uid"))
    return any((each.series_uid, each.sop_uid) in there for each in stored)


def keep(study: Study, stored: Iterable[StoredReference]) -> None:
    """Make the rows, within the transaction that the study's others are made in."""
    Reference.objects.bulk_create(
        Reference(
            id=each.id,
            study=study,
            series_uid=each.series_uid,
            series_number=each.head.series_number,
            sop_instance_uid=each.sop_uid,
            sop_class_uid=each.head.sop_class_uid,
            modality=each.head.modality,
            header=each.head.header,
            pixels=each.head.pixels,
            pixels_key=each.key,
            transfer_syntax=each.head.transfer_syntax,
            digest=each.digest,
            is_held=each.head.is_held,
        )
        for each in stored
    )
