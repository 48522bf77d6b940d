"""Whose masks a model has learnt from, by itself and through its parents."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import QuerySet

from delineate.learning.models import Part, SnapshotItem, TrainingRun
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion


def ancestors(model: ModelVersion) -> Iterator[str]:
    """Its digest, its parent's, and so on."""
    seen: set[str] = set()
    digest = model.digest
    while digest and digest not in seen:
        seen.add(digest)
        yield digest
        digest = (
            ModelVersion.objects.filter(digest=digest).values_list("parent", flat=True).first()
            or ""
        )


def learnt_items(model: ModelVersion) -> QuerySet[SnapshotItem]:
    """The accepted masks that a model has learnt from, as they were frozen."""
    runs = TrainingRun.objects.filter(candidate__in=list(ancestors(model)))
    return SnapshotItem.objects.filter(part=Part.TRAIN, snapshot__in=runs.values("snapshot"))


def learnt_from(project: Project, model: ModelVersion) -> frozenset[str]:
    """The project's subjects, by every pseudonym that they have, that a model has learnt from."""
    items = learnt_items(model).filter(snapshot__project=project)
    names = set(items.values_list("pseudonym", flat=True))
    for alias, survivor in project.subject_aliases.values_list("pseudonym", "subject__pseudonym"):
        if alias in names:
            names.add(survivor)
    return frozenset(names)
