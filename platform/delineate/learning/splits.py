"""The ledger of who is learnt from and who is held out: given once, for ever.

A subject's part is asked for under all its pseudonyms, so that merging two subjects across the
parts moves both to held-out, and one that was erased comes back into the part it was in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict
from delineate.learning.models import LearningSettings, Part, SubjectPart
from delineate.projects.models import Project

NAMED_AT_MOST: Final = 5


def known(project: Project) -> dict[str, Part]:
    """The part of each pseudonym that has one, merged subjects under their surviving name too."""
    parts = {each.pseudonym: Part(each.part) for each in project.subject_parts.all()}
    for alias, survivor in project.subject_aliases.values_list("pseudonym", "subject__pseudonym"):
        if alias not in parts:
            continue
        held_out = Part.HELD_OUT in (parts[alias], parts.get(survivor))
        parts[survivor] = Part.HELD_OUT if held_out else Part.TRAIN
    return parts


def assign(project: Project, pseudonyms: Iterable[str]) -> dict[str, Part]:
    """The parts of these subjects, those that have none given one; the caller holds the project.

    Held out is whoever brings the share of all nearest to the project's, in an order that nobody
    chooses: by a digest under the project's key.
    """
    wanted = set(pseudonyms)
    parts = known(project)
    _remember(project, {name: parts[name] for name in wanted & parts.keys()})
    settings = LearningSettings.of(project)
    new: dict[str, Part] = {}
    total, held_out = len(parts), sum(part == Part.HELD_OUT for part in parts.values())
    for name in sorted(wanted - parts.keys(), key=lambda name: _lot(project, name)):
        total += 1
        is_due = held_out < settings.held_out_share * total
        new[name] = Part.HELD_OUT if is_due and total > 1 else Part.TRAIN
        held_out += new[name] == Part.HELD_OUT
    _give(project, new)
    return {name: (parts | new)[name] for name in wanted}


def give(
    project: Project, pseudonyms: Iterable[str], part: Part, *, by: User | None = None
) -> list[str]:
    """Put subjects into a part, as a published split wants it; who was there already stays there.

    The caller holds the project; who has got a part now. Raises Conflict ``part_given``.
    """
    parts = known(project)
    wanted = sorted(set(pseudonyms))
    if other := [name for name in wanted if parts.get(name, part) != part]:
        some = ", ".join(other[:NAMED_AT_MOST]) + (", …" if len(other) > NAMED_AT_MOST else "")
        raise Conflict(
            f"A subject's part is for ever, and these are in the other one: {some}.",
            code="part_given",
        )
    new = [name for name in wanted if name not in parts]
    _give(project, dict.fromkeys(new, part), by=by)
    return new


def _remember(project: Project, parts: dict[str, Part]) -> None:
    """Write down what merging has decided; from training to held-out only."""
    written = {each.pseudonym: each for each in project.subject_parts.all()}
    moved = [row for name, part in parts.items() if (row := written.get(name)) and row.part != part]
    for row in moved:
        row.part = Part.HELD_OUT
        row.save(update_fields=["part"])
    if moved:
        names = [row.pseudonym for row in moved]
        audit.parts_given(project.id, by=None, part=str(Part.HELD_OUT), pseudonyms=names)
    _give(project, {name: part for name, part in parts.items() if name not in written})


def _give(project: Project, parts: dict[str, Part], *, by: User | None = None) -> None:
    SubjectPart.objects.bulk_create(
        SubjectPart(project=project, pseudonym=name, part=part) for name, part in parts.items()
    )
    for part in Part:
        if names := sorted(name for name, given in parts.items() if given == part):
            audit.parts_given(project.id, by=by, part=str(part), pseudonyms=names)


def _lot(project: Project, pseudonym: str) -> bytes:
    return hashlib.sha256(bytes(project.pseudonym_key) + b"part\0" + pseudonym.encode()).digest()
