"""Acts on subjects: two that are one patient become one, and one is erased for good."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable
from functools import partial

from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from delineate import live
from delineate.accounts.models import User
from delineate.audit import log as audit
from delineate.errors import Conflict, Invalid, NotFound
from delineate.jobs import JobState
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.studies import erasure, selectors
from delineate.studies.models import Erasure, Study, Subject, SubjectAlias
from delineate.studies.tasks import erase_subject_task

logger = logging.getLogger(__name__)


def merge(into: Subject, *, others: Collection[int], by: User) -> Subject:
    """Make one subject of several of a project: ``into`` keeps its pseudonym, and cannot be undone.

    Their studies move, and so does what comes in of them later: their pseudonyms become its
    aliases. Whatever is decided by subject for ever must be decided here for the one that remains:
    where subjects are held out of training, one that was trained on may not merge into one that is
    held out, nor the other way round.

    Raises Invalid ``nothing_to_merge``, ``merge_with_itself``, ``subject_elsewhere``, Conflict
    ``being_erased``, NotFound.
    """
    require(by, Action.MANAGE_SUBJECTS, into.project)
    if not others:
        raise Invalid("Choose at least two subjects.", code="nothing_to_merge")
    if into.id in others:
        raise Invalid("A subject cannot be merged with itself.", code="merge_with_itself")
    with transaction.atomic():
        project = lock(into.project_id)
        wanted = project.subjects.select_for_update().filter(id__in=[into.id, *others])
        subjects = {subject.id: subject for subject in wanted.order_by("id")}
        if into.id not in subjects:
            raise _gone()
        if len(subjects) < 1 + len(set(others)):
            raise Invalid(
                "One of these subjects is not, or no longer, in this project.",
                code="subject_elsewhere",
            )
        _refuse_being_erased(project, subjects.values())
        into = subjects.pop(into.id)
        merged = list(subjects.values())
        digests = [erasure.digest_of(subject) for subject in merged]
        studies = Study.objects.filter(subject__in=merged)
        numbers = [str(study.number) for study in studies]
        studies.update(subject=into)
        SubjectAlias.objects.filter(subject__in=merged).update(subject=into)
        SubjectAlias.objects.bulk_create(
            SubjectAlias(project=project, pseudonym=subject.pseudonym, subject=into)
            for subject in merged
        )
        for subject in merged:
            subject.delete()
        audit.subjects_merged(
            project.id, erasure.digest_of(into), by=by, merged=digests, studies=numbers
        )
        live.tell(project.id, "subjects", id=str(into.id))
    return into


def erase(subject: Subject, *, pseudonym: str, by: User) -> Erasure:
    """Owe a subject's erasure; from now on nothing of it is taken in any more.

    ``pseudonym``: typed by who asks for it. Raises Invalid ``confirmation_wrong``, Conflict
    ``being_erased``, NotFound.
    """
    require(by, Action.MANAGE_SUBJECTS, subject.project)
    if pseudonym != subject.pseudonym:
        raise Invalid(
            f"To erase the subject, type its pseudonym: {subject.pseudonym}.",
            code="confirmation_wrong",
        )
    with transaction.atomic():
        project = lock(subject.project_id)
        locked = project.subjects.select_for_update().filter(id=subject.id).first()
        if locked is None:
            raise _gone()
        _refuse_being_erased(project, [locked])
        owed = _owe(locked, by=by)
        audit.subject_erasure_requested(project.id, owed.digest, by=by)
        live.tell(project.id, "erasure", id=owed.id, state=str(owed.state))
        transaction.on_commit(partial(_hurry, owed.id))
    return owed


def _owe(subject: Subject, *, by: User) -> Erasure:
    """The subject's erasure, owed; it is there already where a restore brought the subject back."""
    owed, _ = Erasure.objects.get_or_create(
        project=subject.project, digest=erasure.digest_of(subject), defaults={"digests": []}
    )
    owed.by = by
    # What it knows is never forgotten: other pseudonyms may have been merged into it then.
    owed.digests = sorted({*owed.digests, *erasure.digests_of(subject)})
    owed.state, owed.attempt, owed.heartbeat_at = JobState.PENDING, 0, timezone.now()
    owed.studies_total, owed.studies_done = subject.studies.count(), 0
    owed.error_code = owed.error_message = ""
    owed.save()
    return owed


def _refuse_being_erased(project: Project, subjects: Iterable[Subject]) -> None:
    awaited = selectors.awaited_erasures(project)
    for subject in subjects:
        if subject.id in awaited and awaited[subject.id].state != JobState.FAILED:
            raise Conflict(f"{subject.pseudonym} is being erased.", code="being_erased")


def _gone() -> NotFound:
    return NotFound("The subject is gone: merged into another one, or erased.")


def _hurry(erasure_id: uuid.UUID) -> None:
    try:
        erase_subject_task.delay(str(erasure_id))
    except (OperationalError, OSError) as error:
        logger.warning("Erasure %s waits for the sweep: %s", erasure_id, error)
