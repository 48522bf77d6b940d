"""The loop that learns: settings, runs, a project's models and their changes, how it goes."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from django.http import FileResponse, HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from pydantic import ConfigDict, Field

from delineate.accounts.permissions import user_of
from delineate.jobs import JobState
from delineate.learning import selectors, services
from delineate.learning.models import (
    Change,
    Comparison,
    LearningSettings,
    Parent,
    Part,
    PromotionState,
    Schedule,
    Stage,
    Trainable,
    Verdict,
)
from delineate.projects.models import Project
from delineate.projects.permissions import Action, require
from delineate.projects.selectors import project_for
from delineate.registry.api import ModelRef
from mlworker.contract.masks import RunLengths

router = Router(tags=["learning"])

COMPARISONS_SHOWN = 20

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hour = Annotated[int, Field(ge=0, le=23)]


class LearningSettingsIn(Schema):
    """How a project wants to learn; hours are UTC, two equal ones mean at any time."""

    model_config = ConfigDict(extra="forbid")

    schedule: Schedule
    every_masks: int = Field(ge=1, le=100_000)
    window_from: Hour
    window_until: Hour
    budget_minutes: int = Field(ge=1, le=7 * 24 * 60)
    trainable: Trainable
    parent: Parent
    epochs: int = Field(ge=1, le=1000)
    learning_rate: float = Field(gt=0, le=0.1)
    automatic: bool
    confidence: float = Field(ge=0.5, lt=1)
    tolerance: float = Field(ge=0, le=1)
    held_out_share: float = Field(gt=0, lt=1)


class PartCounts(Schema):
    """Subjects and accepted masks of a part."""

    subjects: int
    masks: int


class LearningOut(Schema):
    """How a project learns, and what there is to learn from; what is said is in sentences.

    ``refusal``: why nobody can begin a run now. ``due``: why the next run begins by itself, or what
    it waits for. ``fallen``: where first proposals have got worse of late.
    """

    settings: LearningSettingsIn
    train: PartCounts
    held_out: PartCounts
    unassigned_subjects: int
    new_masks: int  # accepted since the last run
    refusal: str | None
    due: str
    fallen: list[str]


class SubjectPartOut(Schema):
    """A subject's part, for ever; None until its first mask is learnt from."""

    pseudonym: str
    part: Part | None
    masks: int


class PartIn(Schema):
    """Which part subjects without one are to be in."""

    model_config = ConfigDict(extra="forbid")

    pseudonyms: list[str] = Field(min_length=1, max_length=10_000)
    part: Part


class LabelJudgement(Schema):
    """One label, or all: candidate less opponent in Dice, with an interval."""

    label: str
    masks: int
    subjects: int
    opponent_dice: float
    candidate_dice: float
    difference: float
    low: float | None
    high: float | None
    opponent_noc: dict[str, float]  # "85" and "90": mean clicks to that IoU
    candidate_noc: dict[str, float]


class Judgement(Schema):
    """The gate's reasons, intervals at the ``confidence``; ``labels`` begins with "all"."""

    sentence: str
    confidence: float | None = None
    tolerance: float | None = None  # Dice that a label may lose
    labels: list[LabelJudgement]


class RunOut(Schema):
    """A run as a list shows it."""

    id: UUID
    number: int
    state: JobState
    stage: Stage
    by: str | None  # None: the schedule
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    epoch: int
    step: int
    of_steps: int
    eta_s: float | None
    seconds: float
    evaluated: int
    to_evaluate: int
    parent: ModelRef
    candidate: ModelRef | None
    opponent: ModelRef | None
    verdict: Verdict | None
    stop_wanted: bool
    error_code: str
    error_message: str


class RunDetails(RunOut):
    """A run with its curve ([step, loss, Dice]), log ([when, sentence]) and judgement."""

    curve: list[tuple[int, float | None, float | None]]
    log: list[tuple[str, str]]
    recipe: dict[str, object]
    judgement: Judgement | None
    train: PartCounts
    held_out: PartCounts
    near_duplicates: int
    snapshot_digest: str


class Answered(Schema):
    """When a model answered in the project."""

    since: datetime
    until: datetime | None
    by: str | None


class ProjectModel(Schema):
    """A model that the project made or used, or may use.

    ``trained_on_erased``: it has learnt from somebody who was erased since.
    """

    digest: str
    name: str
    variant: str
    trained: bool
    parent: str
    created_at: datetime
    is_active: bool
    is_roll_back: bool  # what a roll-back goes to
    is_default: bool
    run_id: UUID | None
    verdict: Verdict | None
    metrics: dict[str, float]
    answered: list[Answered]
    trained_on_erased: bool


class PromotionIn(Schema):
    """Which model is to answer; a roll-back needs none."""

    model_config = ConfigDict(extra="forbid")

    change: Change
    digest: Digest | None = None


class PromotionOut(Schema):
    """A model on its way to answering."""

    id: UUID
    change: Change
    model: ModelRef
    state: PromotionState
    by: str | None
    created_at: datetime
    finished_at: datetime | None
    prepared: int
    total: int


class ComparisonIn(Schema):
    """Two models of the project, on the masks that a run held out (without one: the last run)."""

    model_config = ConfigDict(extra="forbid")

    first: Digest
    second: Digest
    run_id: UUID | None = None


class ComparisonOut(Schema):
    """A comparison; ``judgement`` is of the second against the first."""

    id: UUID
    first: ModelRef
    second: ModelRef
    state: JobState
    done: int
    of: int
    created_at: datetime
    judgement: Judgement | None
    error_message: str


class ComparedMask(Schema):
    """One held-out mask: what was accepted, and what each model makes of its box."""

    slice_id: UUID
    series_id: UUID
    index: int  # of the slice in its series
    task_id: UUID | None
    picture: str  # address of the slice as a PNG
    label: str
    color: str
    subject: str
    accepted: RunLengths
    first: RunLengths
    second: RunLengths
    first_dice: float
    second_dice: float


class Period(Schema):
    """What an accepted mask cost while one model answered; medians."""

    model: ModelRef
    since: datetime
    until: datetime | None
    masks: int
    clicks: float | None
    seconds: float | None
    first_dice: float | None  # of the model's first proposal against what was accepted
    hand_drawn: float | None  # share


class DriftPoint(Schema):
    """A week's mean Dice of first proposals."""

    week: date
    masks: int
    dice: float


class DriftLine(Schema):
    """One label or scanner over the weeks; ``falls``: a lead should look at it, with a sentence."""

    by: str  # label, or scanner
    name: str
    points: list[DriftPoint]
    falls: bool
    sentence: str


@router.get("/projects/{project_id}/learning", response=LearningOut)
def get_learning(request: HttpRequest, project_id: UUID) -> dict[str, object]:
    """How the project learns."""
    return selectors.learning_of(project_for(user_of(request), project_id))


@router.put("/projects/{project_id}/learning/settings", response=LearningSettingsIn)
def put_settings(
    request: HttpRequest, project_id: UUID, wanted: LearningSettingsIn
) -> LearningSettings:
    """Change how the project learns; for leads."""
    user = user_of(request)
    return services.change_settings(
        project_for(user, project_id), wanted=wanted.model_dump(), by=user
    )


@router.get("/projects/{project_id}/learning/parts", response=list[SubjectPartOut])
def list_parts(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """Subjects with accepted masks, and their parts."""
    return selectors.parts_of(project_for(user_of(request), project_id))


@router.post("/projects/{project_id}/learning/parts", response=list[SubjectPartOut])
def post_parts(request: HttpRequest, project_id: UUID, given: PartIn) -> list[dict[str, object]]:
    """Give subjects their part, as a published split wants it; 409 part_given. For leads."""
    user = user_of(request)
    project = project_for(user, project_id)
    services.give_part(project, pseudonyms=given.pseudonyms, part=given.part, by=user)
    return selectors.parts_of(project)


@router.get("/projects/{project_id}/runs", response=list[RunOut])
def list_runs(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """The project's runs, the newest first."""
    return [selectors.run_line(run) for run in selectors.runs_of(_viewed(request, project_id))]


@router.post("/projects/{project_id}/runs", response={201: RunOut})
def post_run(request: HttpRequest, project_id: UUID) -> Status[dict[str, object]]:
    """Begin a run now; 409 nothing_to_learn, run_under_way. For leads."""
    user = user_of(request)
    run = services.start_run(project_for(user, project_id), by=user)
    return Status(201, selectors.run_line(run))


@router.get("/runs/{run_id}", response=RunDetails)
def get_run(request: HttpRequest, run_id: UUID) -> dict[str, object]:
    """One run with its curve, log and judgement."""
    return selectors.run_details(selectors.run_for(user_of(request), run_id))


@router.get(
    "/runs/{run_id}/log",
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "description": "The zip.",
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            }
        }
    },
)
def get_run_log(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """A run's events and its curves for TensorBoard, zipped; 409 no_log."""
    run = selectors.run_for(user_of(request), run_id)
    return HttpResponse(
        selectors.run_log(run),
        content_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="run-{run.number}.zip"'},
    )


@router.post("/runs/{run_id}/cancel", response=RunOut)
def cancel_run(request: HttpRequest, run_id: UUID) -> dict[str, object]:
    """Stop a run; 409 run_ended. For leads."""
    user = user_of(request)
    return selectors.run_line(services.cancel_run(selectors.run_for(user, run_id), by=user))


@router.get("/projects/{project_id}/models", response=list[ProjectModel])
def list_project_models(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """The models of a project, the newest first: its own, those that answered, and the default."""
    return selectors.models_of(_viewed(request, project_id))


@router.get("/projects/{project_id}/promotions", response=list[PromotionOut])
def list_promotions(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """Changes of the project's model, the newest first."""
    return selectors.promotions_of(_viewed(request, project_id))


@router.post("/projects/{project_id}/promotions", response={201: PromotionOut})
def post_promotion(
    request: HttpRequest, project_id: UUID, wanted: PromotionIn
) -> Status[dict[str, object]]:
    """Let another model answer; 409 already_active, nothing_to_roll_back_to. For leads."""
    user = user_of(request)
    promotion = services.promote(
        project_for(user, project_id), digest=wanted.digest, change=wanted.change, by=user
    )
    return Status(201, selectors.promotion_line(promotion))


@router.get("/projects/{project_id}/comparisons", response=list[ComparisonOut])
def list_comparisons(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """The last comparisons, the newest first."""
    project = _viewed(request, project_id)
    return [
        selectors.comparison_line(each)
        for each in selectors.comparisons_of(project)[:COMPARISONS_SHOWN]
    ]


@router.post("/projects/{project_id}/comparisons", response={201: ComparisonOut})
def post_comparison(
    request: HttpRequest, project_id: UUID, wanted: ComparisonIn
) -> Status[dict[str, object]]:
    """Compare two models on the held-out masks; 409 nothing_held_out. For leads."""
    user = user_of(request)
    comparison = services.compare(
        project_for(user, project_id),
        first=wanted.first,
        second=wanted.second,
        run_id=wanted.run_id,
        by=user,
    )
    return Status(201, selectors.comparison_line(comparison))


@router.get("/comparisons/{comparison_id}", response=ComparisonOut)
def get_comparison(request: HttpRequest, comparison_id: UUID) -> dict[str, object]:
    """How far a comparison has come, and what it says."""
    return selectors.comparison_line(_comparison(request, comparison_id))


@router.get("/comparisons/{comparison_id}/masks", response=list[ComparedMask])
def list_compared(
    request: HttpRequest, comparison_id: UUID, limit: int = 24
) -> list[dict[str, object]]:
    """The masks on which the two differ most; 409 not_ready."""
    return selectors.compared_masks(
        _comparison(request, comparison_id), limit=max(1, min(limit, 200))
    )


@router.get("/projects/{project_id}/helping", response=list[Period])
def list_periods(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """What an accepted mask cost under each model, in the order they answered."""
    return selectors.helping(_viewed(request, project_id))


@router.get("/projects/{project_id}/drift", response=list[DriftLine])
def list_drift(request: HttpRequest, project_id: UUID) -> list[dict[str, object]]:
    """Weekly agreement of first proposals with what was accepted, by label and by scanner."""
    return selectors.drift(_viewed(request, project_id))


@router.get(
    "/projects/{project_id}/models/{digest}/card",
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "description": "The card.",
                "content": {"text/markdown": {"schema": {"type": "string"}}},
            }
        }
    },
)
def get_card(request: HttpRequest, project_id: UUID, digest: str) -> HttpResponse:
    """The model's card, in Markdown."""
    text = selectors.card_of(_viewed(request, project_id), digest=digest)
    return HttpResponse(text, content_type="text/markdown; charset=utf-8")


@router.get(
    "/projects/{project_id}/models/{digest}/file",
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "description": "The checkpoint.",
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                },
            }
        }
    },
)
def get_model_file(request: HttpRequest, project_id: UUID, digest: str) -> FileResponse:
    """The model's checkpoint (safetensors); for leads."""
    user = user_of(request)
    project = project_for(user, project_id)
    return FileResponse(
        services.open_checkpoint(project, digest=digest, by=user),
        as_attachment=True,
        filename=f"{digest[:12]}.safetensors",
        content_type="application/octet-stream",
    )


def _viewed(request: HttpRequest, project_id: UUID) -> Project:
    user = user_of(request)
    project = project_for(user, project_id)
    require(user, Action.VIEW, project)
    return project


def _comparison(request: HttpRequest, comparison_id: UUID) -> Comparison:
    return selectors.comparison_for(user_of(request), comparison_id)
