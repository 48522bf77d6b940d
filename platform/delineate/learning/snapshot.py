"""A snapshot: the accepted masks of a moment, frozen as a learning set.

Revisions never change, so what is kept are their ids and digests; the set itself is written when a
run needs it and can be written again, byte for byte, as long as nobody in it has been erased.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from django.db import transaction

from delineate import storage
from delineate.annotation.models import MaskRevision
from delineate.annotation.selectors import accepted_masks
from delineate.errors import Conflict, NotFound
from delineate.jobs import JobState
from delineate.learning import lineage, splits
from delineate.learning.models import Part, Snapshot, SnapshotItem
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion
from delineate.studies.models import Encoding
from delineate.studies.selectors import image_of
from mlworker.contract.artifacts import unpack_array
from mlworker.contract.learning import LearningImage, LearningMask, LearningSet, StoredSet
from mlworker.contract.masks import RunLengths

# Of a distance between slices across the parts, in medians of all such distances.
NEARLY_EQUAL: Final = 0.1
NEAR_DUPLICATES_KEPT: Final = 50
COMPARED_AT_MOST: Final = 4000  # slices of each part
_POOLED: Final = 4  # of an embedding's 16 x 16 places, to a side


class NothingToLearn(Conflict):
    """No accepted mask of anybody who may be learnt from."""

    code = "nothing_to_learn"


def to_learn_from(project: Project) -> list[MaskRevision]:
    """The masks of reviewed tasks that show something, with what they are of."""
    revisions = accepted_masks(project, reviewed_only=True)
    revisions = revisions.select_related("slice__series__study__subject", "label")
    return [one for one in revisions if len(one.mask["counts"]) > 1]


def masks_by_subject(project: Project) -> Counter[str]:
    """How many masks there are to learn from, by pseudonym; none of them is read."""
    subject = "slice__series__study__subject__pseudonym"
    revisions = accepted_masks(project, reviewed_only=True)
    # The second run is the first foreground.
    shown = revisions.values_list(subject, "mask__counts__1")
    return Counter(name for name, foreground in shown if foreground is not None)


def freeze(project: Project, *, parent: ModelVersion) -> Snapshot:
    """The project's accepted masks as they are now; raises NothingToLearn."""
    with transaction.atomic():
        project = lock(project.id)
        revisions = to_learn_from(project)
        parts = splits.assign(project, {_subject(revision) for revision in revisions})
        learnt = lineage.learnt_from(project, parent)
        judging = {name for name, part in parts.items() if part == Part.HELD_OUT} - learnt
        kept = [
            revision
            for revision in revisions
            if parts[_subject(revision)] == Part.TRAIN or _subject(revision) in judging
        ]
        if not any(parts[_subject(revision)] == Part.TRAIN for revision in kept):
            raise NothingToLearn(
                "There is nothing to learn from: no mask of a subject that may be learnt from has "
                "been accepted by a reviewer."
            )
        content = _written(kept, parts)
        snapshot = Snapshot.objects.create(
            project=project,
            digest=hashlib.sha256(content).hexdigest(),
            left_out=len({_subject(revision) for revision in revisions})
            - len({_subject(revision) for revision in kept}),
        )
        SnapshotItem.objects.bulk_create(_item(snapshot, each, parts) for each in kept)
    storage.put(snapshot.key, content)
    return snapshot


def stored(snapshot: Snapshot) -> StoredSet:
    """The learning set for the worker, written anew where it is gone; Conflict ``set_changed``."""
    if not storage.exists(snapshot.key):
        items = {item.revision_id: item for item in snapshot.items.all()}
        revisions = accepted(items)
        parts = {item.pseudonym: Part(item.part) for item in items.values()}
        names = {item.revision_id: item.pseudonym for item in items.values()}
        content = _written(revisions, parts, names=names) if revisions else b""
        if hashlib.sha256(content).hexdigest() != snapshot.digest:
            raise Conflict(
                "Masks of the snapshot are gone: somebody was erased, or a study deleted.",
                code="set_changed",
            )
        storage.put(snapshot.key, content)
    return StoredSet(key=snapshot.key, digest=snapshot.digest)


def accepted(ids: Iterable[UUID]) -> list[MaskRevision]:
    """Revisions with what they are of, in a snapshot's order."""
    found = MaskRevision.objects.filter(id__in=list(ids))
    found = found.select_related("slice__series__study__subject", "slice__instance", "label")
    return sorted(found, key=lambda one: str(one.id))


def near_duplicates(snapshot: Snapshot, *, model_digest: str) -> list[dict[str, str]]:
    """Pairs of slices, one learnt from and one held out, that are nearly equal; the nearest first.

    By the embeddings that are there; distances are in medians of all distances across the parts.
    """
    features = {part: _features(snapshot, part, model_digest=model_digest) for part in Part}
    (learnt, ours), (judging, theirs) = features[Part.TRAIN], features[Part.HELD_OUT]
    if not learnt or not judging:
        return []
    squares = (ours**2).sum(1)[:, None] + (theirs**2).sum(1)[None, :] - 2 * ours @ theirs.T
    distances = np.sqrt(np.maximum(squares, 0))
    near = np.argwhere(distances <= NEARLY_EQUAL * np.median(distances))
    ordered = sorted(near.tolist(), key=lambda pair: float(distances[pair[0], pair[1]]))
    return [
        {"train": learnt[one], "held_out": judging[other]}
        for one, other in ordered[:NEAR_DUPLICATES_KEPT]
    ]


def _features(
    snapshot: Snapshot, part: Part, *, model_digest: str
) -> tuple[list[str], npt.NDArray[np.float32]]:
    slice_ids = list(
        snapshot.items.filter(part=part).order_by("slice_id").values_list("slice_id").distinct()
    )
    encodings = Encoding.objects.filter(
        slice__in=[slice_id for (slice_id,) in slice_ids[:COMPARED_AT_MOST]],
        model_digest=model_digest,
        state=JobState.DONE,
    ).order_by("slice_id")
    names: list[str] = []
    values = []
    for slice_id, key in encodings.values_list("slice_id", "embedding_key"):
        try:
            embedding = unpack_array(storage.get(key)).astype(np.float32)
        except NotFound:  # taken back meanwhile
            continue
        channels, rows, columns = embedding.shape
        pooled = embedding.reshape(
            channels, _POOLED, rows // _POOLED, _POOLED, columns // _POOLED
        ).mean(axis=(2, 4))
        names.append(str(slice_id))
        values.append(pooled.reshape(-1))
    return names, np.stack(values) if values else np.zeros((0, 1), np.float32)


def _written(
    revisions: Sequence[MaskRevision],
    parts: dict[str, Part],
    *,
    names: dict[UUID, str] | None = None,
) -> bytes:
    """``names``: what subjects were called then, where they may have been merged since."""
    by_slice: dict[UUID, list[MaskRevision]] = {}
    for revision in sorted(revisions, key=lambda one: str(one.id)):
        by_slice.setdefault(revision.slice_id, []).append(revision)
    items = []
    for slice_id in sorted(by_slice, key=str):
        own = by_slice[slice_id]
        subject = names[own[0].id] if names else _subject(own[0])
        items.append(
            LearningImage(
                slice_id=str(slice_id),
                image=image_of(own[0].slice),
                modality=own[0].slice.series.modality,
                subject=subject,
                part="train" if parts[subject] == Part.TRAIN else "held_out",
                masks=tuple(
                    LearningMask(
                        revision_id=str(revision.id),
                        label=revision.label.name,
                        mask=RunLengths.model_validate(revision.mask),
                    )
                    for revision in own
                ),
            )
        )
    return LearningSet(items=tuple(items)).model_dump_json().encode()


def _item(snapshot: Snapshot, revision: MaskRevision, parts: dict[str, Part]) -> SnapshotItem:
    mask = RunLengths.model_validate(revision.mask).model_dump_json().encode()
    return SnapshotItem(
        snapshot=snapshot,
        revision_id=revision.id,
        slice_id=revision.slice_id,
        pseudonym=_subject(revision),
        part=parts[_subject(revision)],
        label=revision.label.name,
        pixels_digest=revision.slice.pixels_digest,
        mask_digest=hashlib.sha256(mask).hexdigest(),
    )


def _subject(revision: MaskRevision) -> str:
    return revision.slice.series.study.subject.pseudonym
