"""What to annotate next: slices that nobody has annotated are scored by the model, then ordered.

    running ──all are scored, or cannot be──> done: the best are kept, each with a reason
       └──the worker is silent too often, or another model answers──> failed

Candidates are worked out anew whenever something has happened, so that what is annotated, held or
erased in the meantime drops out by itself; of very many, the seed says which are looked at. Scores
are kept by slice and model: a later ranking asks for what is new alone. At most IN_FLIGHT slices
are with the worker, which encodes what people wait for in between.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, cast
from uuid import UUID

import numpy as np
from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, QuerySet, Value
from django.db.models.functions import MD5, Cast, Concat
from django.utils import timezone

from delineate import jobs, live, storage, worker
from delineate.accounts.models import User
from delineate.annotation.models import MaskRevision
from delineate.annotation.selectors import accepted_masks
from delineate.annotation.transitions import EDITABLE
from delineate.errors import Conflict, NotFound
from delineate.jobs import MAX_ATTEMPTS, JobState
from delineate.learning.models import RankedSlice, Ranking, SliceScore, Strategy
from delineate.projects.locking import lock
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.registry.selectors import active_digest, active_model
from delineate.studies import encoding
from delineate.studies.models import Encoding, Slice
from delineate.studies.selectors import image_of, not_held
from mlworker.contract import broker, learning
from mlworker.contract import ranking as contract
from mlworker.contract.artifacts import ArtifactError, unpack_array
from mlworker.contract.learning import MAX_SCORED, ScoreItem, ScoreSlices, SlicesScored
from mlworker.contract.ranking import (
    Annotated,
    Candidate,
    Features,
    features_of,
    rank,
    unpack_features,
)

logger = logging.getLogger(__name__)

CANDIDATES_AT_MOST: Final = 20_000
ANNOTATED_AT_MOST: Final = 2000  # each is a file that is read, unless it has been scored
IN_FLIGHT: Final = 4 * MAX_SCORED
ENCODED_AT_ONCE: Final = 512
KEPT: Final = 200
RANKINGS_KEPT: Final = 50  # of a project
# Longer than a worker scores what is in flight, and what lies in its queue before that.
SILENT_AFTER: Final = timedelta(minutes=2)


class RankingUnderWay(Conflict):
    """A project is ranked in one way at a time."""

    code = "ranking_under_way"


class NothingToRank(Conflict):
    """Every slice of a task that can be worked on has an accepted mask."""

    code = "nothing_to_rank"


def begin(project: Project, *, strategy: Strategy, by: User) -> Ranking:
    """Rank the project's slices; raises RankingUnderWay, NothingToRank, Conflict ``no_model``."""
    require(by, Action.LEARN, project)
    with transaction.atomic():
        project = lock(project.id)
        if project.rankings.filter(state__in=[JobState.PENDING, JobState.RUNNING]).exists():
            raise RankingUnderWay("A ranking is under way; wait for its end.")
        model = active_model(project)
        seed = random.SystemRandom().randrange(2**31)
        total = candidates(project, seed=seed).count()
        if not total:
            raise NothingToRank("No slice is left without a mask in the tasks that are open.")
        ranking = Ranking.objects.create(
            project=project,
            strategy=strategy,
            model=model,
            by=by,
            seed=seed,
            total=total,
            state=JobState.RUNNING,
        )
        old = list(project.rankings.values_list("id", flat=True)[RANKINGS_KEPT:])
        Ranking.objects.filter(id__in=old).delete()
        finished = _ask(ranking)
        _tell(ranking)
    if finished:
        _order(ranking)
        ranking.refresh_from_db()
    return ranking


def candidates(project: Project, *, seed: int) -> QuerySet[Slice]:
    """Slices that can be annotated and are not, in an order that is the seed's; not too many."""
    accepted = MaskRevision.objects.filter(slice=OuterRef("pk"))
    drawn = MD5(Concat(Cast("id", CharField()), Value(f"/{seed}")))
    slices = Slice.objects.filter(
        ~Exists(accepted),
        not_held("series__"),
        series__study__project=project,
        series__task__state__in=EDITABLE,
    )
    return slices.order_by(drawn, "id")[:CANDIDATES_AT_MOST]


def sweep() -> None:
    """Go on with every ranking: send what has become due, and again what has been silent."""
    running = Ranking.objects.filter(state=JobState.RUNNING)
    # Who has asked for nothing waits for embeddings, which come when they do.
    jobs.mark_sent(worker.unseen(running, queue=ScoreSlices.queue) | running.filter(asked=[]))
    for ranking_id in running.values_list("id", flat=True):
        with transaction.atomic():
            ranking = _locked(ranking_id)
            if ranking is None:
                continue
            silent = ranking.heartbeat_at < timezone.now() - SILENT_AFTER
            if silent and ranking.attempt >= MAX_ATTEMPTS:
                _fail(
                    ranking, "gave_up", f"The worker was asked {MAX_ATTEMPTS} times without answer."
                )
                continue
            if silent:
                ranking.attempt += 1
                ranking.asked = []  # to be asked again, as whatever else has no score
            finished = _ask(ranking)
        if finished:
            _order(ranking)


def receive(event: SlicesScored) -> None:
    """Keep scores, ask for the next, and order all of them after the last; safe to run twice."""
    with transaction.atomic():
        ranking = _locked(UUID(event.ranking_id))
        if ranking is None or event.model_digest != ranking.model_id:
            return
        answers = {UUID(each.slice_id): each for each in event.slices}
        answers = {id: answers[id] for id in ranking.asked if id in answers}
        if not answers:
            return  # sent again after silence, and answered before
        unprepared = _keep(ranking, answers)
        ranking.asked = [id for id in ranking.asked if id not in answers]
        # Only sendings that bring nothing count.
        ranking.attempt, ranking.heartbeat_at = 0, timezone.now()
        finished = _ask(ranking, anew=unprepared)
    if finished:
        _order(ranking)


def _keep(ranking: Ranking, answers: Mapping[UUID, learning.SliceScore]) -> list[UUID]:
    """Keep what has been scored; the slices whose embeddings the worker did not find."""
    there = set(Slice.objects.filter(id__in=answers).values_list("id", flat=True))
    scores, unprepared = [], []
    for slice_id, answer in answers.items():
        if answer.code == "not_prepared" and slice_id not in ranking.unprepared:
            unprepared.append(slice_id)
            continue
        try:
            features = _features_in(answer)
        except ValueError as error:
            logger.warning("Slice %s has no score: %s", slice_id, error)
            ranking.refused.append(slice_id)
            continue
        if slice_id in there:
            scores.append(
                SliceScore(
                    slice_id=slice_id,
                    model_digest=ranking.model_id,
                    predicted_iou=answer.predicted_iou,
                    disagreement=answer.disagreement,
                    instability=answer.instability,
                    features=features.astype("<f2").tobytes(),
                )
            )
    SliceScore.objects.bulk_create(scores, ignore_conflicts=True)
    ranking.unprepared += unprepared
    return unprepared


def _features_in(answer: learning.SliceScore) -> Features:
    """Raises ValueError for an answer that is none."""
    if answer.code is not None:
        raise ValueError(answer.message or answer.code)
    return unpack_features(answer.features)


def _ask(ranking: Ranking, *, anew: Sequence[UUID] = ()) -> bool:
    """Send what has no score yet, as far as there is room; whether nothing is left to wait for.

    Belongs into the transaction that has locked the ranking. ``anew``: embeddings that are gone.
    """
    project, model_digest = ranking.project, ranking.model_id
    if active_digest(project) != model_digest:
        _fail(ranking, "model_changed", "Another model answers in the project now; rank again.")
        return False
    before = ranking.scored, ranking.total
    wanted = list(candidates(project, seed=ranking.seed).values_list("id", flat=True))
    has = set(_scores(ranking).values_list("slice_id", flat=True)).union(ranking.refused)
    left = [id for id in wanted if id not in has]
    ready, owed, given_up = _embedded(ranking, left)
    ranking.refused += given_up
    ranking.asked = [id for id in ranking.asked if id in ready]
    sent = [id for id in left if id in ready and id not in ranking.asked and id not in anew]
    sent = sent[: max(0, IN_FLIGHT - len(ranking.asked))]
    if sent:
        ranking.asked += sent
        ranking.heartbeat_at = timezone.now()
        _send(ranking, sent)
    if anew:
        encoding.request(anew, model_digest=model_digest, priority=broker.PRIORITY_LATER, anew=True)
    if owed:
        encoding.request(
            owed[:ENCODED_AT_ONCE], model_digest=model_digest, priority=broker.PRIORITY_LATER
        )
    unscored = len(left) - len(given_up)
    ranking.total, ranking.scored = len(wanted), len(wanted) - unscored
    ranking.save()
    if (ranking.scored, ranking.total) != before:
        _tell(ranking)
    return unscored == 0


def _embedded(
    ranking: Ranking, slice_ids: Sequence[UUID]
) -> tuple[set[UUID], list[UUID], list[UUID]]:
    """Slices that have their embedding, those that nobody owes one, and those without hope."""
    known = {
        slice_id: (state, attempt)
        for slice_id, state, attempt in Encoding.objects.filter(
            slice__series__study__project=ranking.project, model_digest=ranking.model_id
        ).values_list("slice_id", "state", "attempt")
    }
    ready, owed, given_up = set(), [], []
    for slice_id in slice_ids:
        match known.get(slice_id):
            case (JobState.DONE, _):
                ready.add(slice_id)
            case (JobState.FAILED, attempt) if attempt >= MAX_ATTEMPTS:
                given_up.append(slice_id)
            case None | (JobState.FAILED, _):
                owed.append(slice_id)
    return ready, owed, given_up


def _send(ranking: Ranking, slice_ids: Sequence[UUID]) -> None:
    slices = list(Slice.objects.filter(id__in=slice_ids).select_related("series"))
    for start in range(0, len(slices), MAX_SCORED):
        worker.send(
            ScoreSlices(
                ranking_id=str(ranking.id),
                model_digest=ranking.model_id,
                items=tuple(
                    ScoreItem(slice_id=str(slice_.id), image=image_of(slice_))
                    for slice_ in slices[start : start + MAX_SCORED]
                ),
            )
        )


def _order(ranking: Ranking) -> None:
    """Order what has been scored and keep the best; it takes seconds, and locks nobody out."""
    found = _scored(ranking)
    choices = rank(
        cast(contract.Strategy, ranking.strategy),
        found,
        _annotated(ranking),
        count=KEPT,
        seed=ranking.seed,
    )
    with transaction.atomic():
        locked = _locked(ranking.id)
        if locked is None:
            return  # somebody else was faster
        if locked.total and not found:
            _fail(locked, "nothing_scored", "The worker could not score a single slice.")
            return
        there = set(
            Slice.objects.filter(id__in=[choice.id for choice in choices])
            .select_for_update(no_key=True)
            .values_list("id", flat=True)
        )
        RankedSlice.objects.bulk_create(
            RankedSlice(
                ranking=locked,
                position=position,
                slice_id=UUID(choice.id),
                score=choice.score,
                reason=choice.reason,
            )
            for position, choice in enumerate(choices, start=1)
            if UUID(choice.id) in there
        )
        locked.state, locked.finished_at = JobState.DONE, timezone.now()
        locked.save(update_fields=["state", "finished_at"])
        _tell(locked)


def _scored(ranking: Ranking) -> list[Candidate]:
    wanted = set(candidates(ranking.project, seed=ranking.seed).values_list("id", flat=True))
    return [
        Candidate(
            id=str(score.slice_id),
            features=features_of(bytes(score.features)),
            predicted_iou=score.predicted_iou,
            disagreement=score.disagreement,
            instability=score.instability,
        )
        for score in _scores(ranking).iterator()
        if score.slice_id in wanted
    ]


def _scores(ranking: Ranking) -> QuerySet[SliceScore]:
    return SliceScore.objects.filter(
        slice__series__study__project=ranking.project, model_digest=ranking.model_id
    )


def _annotated(ranking: Ranking) -> list[Annotated]:
    """Slices with accepted masks and the labels that these show, as many as can be looked at."""
    shown: dict[UUID, set[str]] = defaultdict(set)
    # The second run is the first foreground: without it the label is not there.
    for slice_id, label, foreground in accepted_masks(
        ranking.project, reviewed_only=False
    ).values_list("slice_id", "label__name", "mask__counts__1"):
        shown[slice_id].update([] if foreground is None else [label])
    drawn = random.Random(ranking.seed).sample(  # noqa: S311 - which are looked at, no secret
        sorted(shown), min(ANNOTATED_AT_MOST, len(shown))
    )
    features = {
        score.slice_id: features_of(bytes(score.features))
        for score in _scores(ranking).filter(slice__in=drawn)
    }
    unscored = Encoding.objects.filter(
        slice__in=set(drawn) - features.keys(),
        model_digest=ranking.model_id,
        state=JobState.DONE,
    )
    for slice_id, key in unscored.values_list("slice_id", "embedding_key"):
        try:
            embedding = unpack_array(storage.get(key))
        except (NotFound, ArtifactError) as error:
            logger.warning("Slice %s is not compared with: %s", slice_id, error)
            continue
        features[slice_id] = embedding.astype(np.float32).mean(axis=(1, 2))
    return [
        Annotated(features[slice_id], frozenset(shown[slice_id]))
        for slice_id in drawn
        if slice_id in features
    ]


def _locked(ranking_id: UUID) -> Ranking | None:
    """A ranking that is under way, for this transaction alone."""
    return (
        Ranking.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project")
        .filter(id=ranking_id, state=JobState.RUNNING)
        .first()
    )


def _fail(ranking: Ranking, code: str, message: str) -> None:
    jobs.fail(ranking, code=code, message=message)
    _tell(ranking)


def _tell(ranking: Ranking) -> None:
    live.tell(
        ranking.project_id,
        "ranking",
        id=ranking.id,
        state=str(ranking.state),
        scored=ranking.scored,
        total=ranking.total,
    )
