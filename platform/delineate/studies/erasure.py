"""A subject is erased for good: its studies with all that was made of them, and then itself.

    subjects.erase ──> pending ──> tombstone in the store ──> study by study ──> subject ──> done
                                    rows, what objects are owed ─┘└─ objects

From the moment that it is asked for, ingest takes nothing of the subject in (selectors.is_erased):
an upload that holds some of it ends with its refusal and without its bytes. Safe to run again after
being killed anywhere: the row remembers which objects are owed before the rows go that knew them,
and what remains to be done is read from what is still there. Exports are withdrawn by their own
sweep, as after every study that is deleted.

A backup does not know what was erased after it was made. So the tombstone lies outside the
database, too; ``honour`` brings rows and tombstones to one state, whichever of them is older, and
erases again what a restore has brought back. It also goes once more over the objects: somebody who
was writing when they were removed has ended by then.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from itertools import chain
from typing import Final

from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel, ConfigDict, ValidationError

from delineate import jobs, live, storage
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.jobs import JobState
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.studies import deidentify, removal
from delineate.studies.models import Erasure, Study, Subject
from mlworker.contract.artifacts import study_prefix

logger = logging.getLogger(__name__)

TOMBSTONES: Final = "tombstones/"
_TOMBSTONE: Final = re.compile(r"tombstones/(?P<project>[0-9a-f-]{36})/(?P<digest>[0-9a-f]{64})")
ENDED: Final = (JobState.DONE, JobState.FAILED)
# An encoding or an ingest that was under way writes at most this long after its rows are gone.
LATE_AFTER: Final = timedelta(minutes=1)


class Tombstone(BaseModel):
    """What lies in the object store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    digests: tuple[str, ...]


def digest_of(subject: Subject) -> str:
    """What an erased subject is called."""
    return deidentify.tombstone("subject", subject.pseudonym, key=_key(subject.project))


def digests_of(subject: Subject) -> list[str]:
    """All that a subject can be known again by: its pseudonyms and its studies."""
    key = _key(subject.project)
    pseudonyms = [subject.pseudonym, *subject.aliases.values_list("pseudonym", flat=True)]
    digests = {deidentify.tombstone("subject", each, key=key) for each in pseudonyms}
    for study in subject.studies.all():
        digests |= _digests_of_study(study, key=key)
    return sorted(digests)


def erase(erasure_id: uuid.UUID) -> None:
    """Run an erasure's job; returns quietly when it is gone, done, or alive in other hands."""
    erasure = jobs.claim(Erasure, erasure_id)
    if erasure is None:
        return
    try:
        _run(erasure)
    except jobs.TakenOver:
        logger.info("Erasure %s was taken over by another attempt", erasure_id)


def honour() -> list[Erasure]:
    """Bring rows and tombstones to one state; the erasures that are owed anew."""
    _remember_each_other()
    owed: list[Erasure] = []
    ended = Erasure.objects.filter(state__in=ENDED)
    by_project: dict[Project, list[Erasure]] = defaultdict(list)
    for erasure in ended.select_related("project"):
        by_project[erasure.project].append(erasure)
    left_over = _folders_without_study() if by_project else []
    for project, erasures in by_project.items():
        here = _digests_in(project)
        folders = _by_digest(left_over, kind="objects", key=_key(project))
        for erasure in erasures:
            # One that failed is never given up; what came back after a good end is the system's.
            failed = erasure.state == JobState.FAILED
            if failed or not here.isdisjoint(erasure.digests):
                if _owe_again(erasure, by=erasure.by if failed else None):
                    owed.append(erasure)
                continue
            for digest in folders.keys() & set(erasure.digests):
                storage.delete_prefix(study_prefix(folders[digest]))
            _remove_once_more(erasure)
    return owed


def _run(erasure: Erasure) -> None:
    studies = _studies_of(erasure)
    key = _key(erasure.project)
    with transaction.atomic():
        jobs.sign_of_life(erasure)
        # A restore may have brought back studies that were not there any more the first time.
        of_studies = (_digests_of_study(study, key=key) for study in studies)
        erasure.digests = sorted({*erasure.digests, *chain.from_iterable(of_studies)})
        erasure.studies_total = erasure.studies_done + len(studies)
        erasure.save(update_fields=["digests", "studies_total"])
        _tell(erasure)
    _write_tombstone(erasure)
    removal.remove_objects(erasure.owed)  # of an attempt that was cut off
    for study in studies:
        removal.remove_objects(_remove_study(erasure, study.id))
    _remove_subjects(erasure)


def _remove_study(erasure: Erasure, study_id: uuid.UUID) -> list[str]:
    """Delete a study's rows; the objects that are owed, which the erasure remembers as well."""
    with transaction.atomic():
        jobs.sign_of_life(erasure)
        study = Study.objects.select_for_update().filter(id=study_id).first()
        owed = [] if study is None else removal.remove_rows(study, by=erasure.by)
        erasure.owed += owed
        erasure.studies_done += 1
        erasure.save(update_fields=["owed", "studies_done"])
        _tell(erasure)
    return owed


def _remove_subjects(erasure: Erasure) -> None:
    with transaction.atomic():
        # As ingest and merging do: nothing comes to these subjects meanwhile.
        project = lock(erasure.project_id)
        key = _key(project)
        known = set(erasure.digests)
        for subject in list(project.subjects.all()):
            if deidentify.tombstone("subject", subject.pseudonym, key=key) in known:
                subject.delete()
        audit.subject_erased(
            project.id, erasure.digest, by=erasure.by, studies=erasure.studies_done
        )
        jobs.finish(erasure)
        _tell(erasure)


def _studies_of(erasure: Erasure) -> list[Study]:
    key = _key(erasure.project)
    known = set(erasure.digests)
    return [
        study
        for study in erasure.project.studies.select_related("subject")
        if deidentify.tombstone("subject", study.subject.pseudonym, key=key) in known
        or not known.isdisjoint(_digests_of_study(study, key=key))
    ]


def _digests_in(project: Project) -> set[str]:
    """Of every subject and study that is there."""
    key = _key(project)
    digests = {
        deidentify.tombstone("subject", pseudonym, key=key)
        for pseudonym in project.subjects.values_list("pseudonym", flat=True)
    }
    for uid in project.studies.values_list("study_uid", flat=True):
        digests.add(deidentify.tombstone("study", uid, key=key))
    return digests


def _digests_of_study(study: Study, *, key: bytes) -> set[str]:
    return {
        deidentify.tombstone("study", study.study_uid, key=key),
        deidentify.tombstone("objects", str(study.id), key=key),
    }


def _by_digest(names: Iterable[str], *, kind: deidentify.Tombstoned, key: bytes) -> dict[str, str]:
    return {deidentify.tombstone(kind, name, key=key): name for name in names}


def _folders_without_study() -> list[str]:
    """Pixels that belong to no study: being ingested, or brought back by a restore of objects."""
    there = {str(study_id) for study_id in Study.objects.values_list("id", flat=True)}
    return [name for name in storage.list_folders("studies/") if name not in there]


def _remember_each_other() -> None:
    """A row for every tombstone and a tombstone for every row."""
    written = set(storage.list_keys(TOMBSTONES))
    rows = list(Erasure.objects.all())
    for erasure in rows:
        if erasure.key not in written:
            _write_tombstone(erasure)
    for key in sorted(written - {erasure.key for erasure in rows}):
        named = _TOMBSTONE.fullmatch(key)
        project = named and Project.objects.filter(id=uuid.UUID(named["project"])).first()
        if named is None or project is None:
            continue  # no tombstone, or of a project that is younger than the backup
        try:
            digests = Tombstone.model_validate_json(storage.get(key)).digests
        except ValidationError:
            logger.error("The tombstone %s cannot be read", key)
            continue
        Erasure.objects.get_or_create(
            project=project,
            digest=named["digest"],
            # As one that has been done: it is owed if something of it is there.
            defaults={"digests": list(digests), "state": JobState.DONE},
        )


def _write_tombstone(erasure: Erasure) -> None:
    content = Tombstone(digests=tuple(erasure.digests))
    storage.put(erasure.key, content.model_dump_json().encode())


def _owe_again(erasure: Erasure, *, by: User | None) -> bool:
    """Owe an erasure that had ended; False when somebody else has done so meanwhile."""
    with transaction.atomic():
        ended = Erasure.objects.select_for_update().filter(id=erasure.id, state__in=ENDED)
        if not ended.update(
            state=JobState.PENDING,
            by=by,
            attempt=0,
            heartbeat_at=timezone.now(),
            studies_total=0,
            studies_done=0,
            error_code="",
            error_message="",
        ):
            return False
        erasure.refresh_from_db()
        _tell(erasure)
    return True


def _remove_once_more(erasure: Erasure) -> None:
    if not erasure.owed or erasure.finished_at is None:
        return
    if erasure.finished_at > timezone.now() - LATE_AFTER:
        return
    removal.remove_objects(erasure.owed)
    erasure.owed = []
    erasure.save(update_fields=["owed"])


def _tell(erasure: Erasure) -> None:
    live.tell(
        erasure.project_id,
        "erasure",
        id=erasure.id,
        state=str(erasure.state),
        studies_done=erasure.studies_done,
        studies_total=erasure.studies_total,
    )


def _key(project: Project) -> bytes:
    return bytes(project.pseudonym_key)
