"""What to annotate next: rankings, and the slices that each has put first."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import ConfigDict

from delineate.accounts.permissions import user_of
from delineate.jobs import JobState
from delineate.learning import ranking, selectors
from delineate.learning.models import Strategy
from delineate.projects.permissions import Action, require
from delineate.projects.selectors import project_for
from delineate.registry.api import ModelRef

router = Router(tags=["learning"])


class RankingIn(Schema):
    """How slices are to be chosen."""

    model_config = ConfigDict(extra="forbid")

    strategy: Strategy


class RankingOut(Schema):
    """How far a ranking has come: ``scored`` of the slices that nobody has annotated."""

    id: UUID
    strategy: Strategy
    state: JobState
    model: ModelRef  # that was asked
    scored: int
    total: int
    created_at: datetime
    finished_at: datetime | None
    error_code: str
    error_message: str


class RankedSliceOut(Schema):
    """A slice that is worth annotating; ``done``: somebody has, since it was ranked."""

    position: int
    slice_id: UUID
    series_id: UUID
    task_id: UUID
    picture: str  # address of the slice as a PNG
    subject: str
    index: int
    score: float
    reason: str
    done: bool


@router.get("/projects/{project_id}/rankings", response=list[RankingOut])
def list_rankings(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """The project's last rankings, the newest first."""
    user = user_of(request)
    project = project_for(user, project_id)
    require(user, Action.VIEW, project)
    return [selectors.ranking_line(each) for each in selectors.rankings_of(project)]


@router.post("/projects/{project_id}/rankings", response={201: RankingOut})
def post_ranking(
    request: HttpRequest, project_id: UUID, wanted: RankingIn
) -> Status[dict[str, object]]:
    """Rank what is not annotated; 409 ranking_under_way, nothing_to_rank, no_model. For leads."""
    user = user_of(request)
    begun = ranking.begin(project_for(user, project_id), strategy=wanted.strategy, by=user)
    return Status(201, selectors.ranking_line(begun))


@router.get("/rankings/{ranking_id}/slices", response=list[RankedSliceOut])
def list_ranked(request: HttpRequest, ranking_id: UUID, limit: int = 50) -> list[dict[str, object]]:
    """The slices to annotate first; none before the ranking is done."""
    user = user_of(request)
    found = selectors.ranking_for(user, ranking_id)
    require(user, Action.VIEW, found.project)
    return selectors.ranked_slices(found, limit=max(1, min(limit, ranking.KEPT)))
