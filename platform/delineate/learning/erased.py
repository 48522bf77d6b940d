"""What erasing a subject means for what was learnt: sets go, models are marked.

A learning set holds masks: the set of a snapshot some of whose revisions are gone is removed, and
written again by nobody. A model that has learnt from one who was erased stays, and says so.
"""

from __future__ import annotations

from typing import Final

from django.db.models import Exists, OuterRef, QuerySet

from delineate import storage
from delineate.annotation.models import MaskRevision
from delineate.jobs import JobState
from delineate.learning.lineage import learnt_items
from delineate.learning.models import Snapshot, SnapshotItem
from delineate.registry.models import ModelVersion

ENDED: Final = (JobState.DONE, JobState.FAILED)


def sweep() -> None:
    """Remove the sets of those who are gone, and results that show their masks."""
    gone = _gone(SnapshotItem.objects.all())
    for snapshot in Snapshot.objects.filter(id__in=gone.values("snapshot")):
        if storage.exists(snapshot.key):
            storage.delete(snapshot.key)
        shown = [run.results_key for run in snapshot.runs.filter(state__in=ENDED)]
        shown += [each.results_key for each in snapshot.comparisons.filter(state__in=ENDED)]
        for key in filter(storage.exists, shown):
            storage.delete(key)


def has_learnt_from_erased(model: ModelVersion) -> bool:
    """Whether a model, or one that it was made from, learnt from somebody whose masks are gone."""
    return _gone(learnt_items(model)).exists()


def _gone(items: QuerySet[SnapshotItem]) -> QuerySet[SnapshotItem]:
    """Those whose revision was deleted, with its study or its subject."""
    revision = MaskRevision.objects.filter(id=OuterRef("revision_id"))
    return items.filter(~Exists(revision))
