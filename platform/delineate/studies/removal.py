"""What goes with a study: its rows at once, its objects when the rows are gone for good."""

from __future__ import annotations

from collections.abc import Iterable

from delineate import live, storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.studies.models import Encoding, Slice, Study
from delineate.studies.selectors import unused_embeddings
from mlworker.contract.artifacts import study_prefix


def remove_rows(study: Study, *, by: User | None) -> list[str]:
    """Delete a locked study with all that was made of it; what ``remove_objects`` is owed."""
    slices = Slice.objects.filter(series__study=study)
    counts = {"series": study.series.count(), "slices": slices.count()}
    embeddings = Encoding.objects.filter(slice__in=slices).values_list("embedding_key", flat=True)
    owed = [study_prefix(str(study.id)), *sorted(set(embeddings))]
    project_id, study_id = study.project_id, study.id
    study.delete()
    audit.study_deleted(project_id, study_id, by=by, **counts)
    live.tell(project_id, "study_deleted", id=study_id)
    return owed


def remove_objects(owed: Iterable[str]) -> None:
    """Remove pixels and embeddings by prefix and key; safe to do twice."""
    prefixes = [key for key in owed if key.endswith("/")]
    embeddings = [key for key in owed if not key.endswith("/")]
    unused = unused_embeddings(embeddings)
    for prefix in prefixes:
        storage.delete_prefix(prefix)
    for key in sorted(unused):
        storage.delete(key)
