"""Quarantine: what is held, how it looks, and letting it go. For those who may release."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema, Status
from pydantic import ConfigDict, Field

from delineate.accounts.permissions import user_of
from delineate.errors import Invalid
from delineate.jobs import JobState
from delineate.projects.permissions import Action, require
from delineate.projects.selectors import project_for
from delineate.studies import quarantine, rendering, selectors
from delineate.studies.black_boxes import BlackBox
from delineate.studies.burned_in import SENTENCES, Reason
from delineate.studies.lossless import pixels_of
from delineate.studies.models import BlackOut, Series, Slice
from delineate.studies.rendering import Shown

router = Router(tags=["quarantine"])

Picture = npt.NDArray[np.uint8]

PREVIEW_PIXELS: Final = 512
PREVIEW_PIXELS_AT_MOST: Final = 2048
# All of them are read for one picture: some seconds' work.
BRIGHTEST_OF_AT_MOST: Final = 1000
# As many as a page's list of series to let go may name.
NAMED_AT_MOST: Final = 10_000


class ReasonOut(Schema):
    """Why a series is held."""

    code: Reason
    sentence: str


class BlackOutOut(Schema):
    """Boxes that are being blacked out of a series, and how far that has come."""

    id: UUID
    state: JobState
    slices_done: int
    slices_total: int
    error_message: str


class HeldSeriesOut(Schema):
    """A series, or one volume of it, that waits for somebody to look at it."""

    id: UUID
    study_id: UUID
    study_number: int
    subject: str
    arrived_at: datetime
    series_uid: str
    number: int
    volume: int
    modality: str
    rows: int
    columns: int
    slices: int
    reason: ReasonOut
    black_out: BlackOutOut | None

    @staticmethod
    def resolve_study_number(series: Series) -> int:
        """Its study's name for people."""
        return series.study.number

    @staticmethod
    def resolve_subject(series: Series) -> str:
        """The pseudonym."""
        return series.study.subject.pseudonym

    @staticmethod
    def resolve_arrived_at(series: Series) -> datetime:
        """When its study came."""
        return series.study.created_at

    @staticmethod
    def resolve_slices(series: Series) -> int:
        """The number of slices."""
        return int(getattr(series, "slice_count"))  # noqa: B009 (annotated by the selector)

    @staticmethod
    def resolve_reason(series: Series) -> ReasonOut:
        """With a sentence for people."""
        reason = Reason(series.held_because)
        return ReasonOut(code=reason, sentence=SENTENCES[reason])

    @staticmethod
    def resolve_black_out(series: Series) -> BlackOut | None:
        """The last one."""
        return next(iter(series.black_outs.all()), None)


class SeenIn(Schema):
    """How many slices a series had when somebody looked at it: it may grow meanwhile."""

    model_config = ConfigDict(extra="forbid")

    slices: int = Field(ge=0)


class SeenSeriesIn(SeenIn):
    """A series that somebody has looked at."""

    series_id: UUID


class ReleaseIn(Schema):
    """The series that somebody has looked at."""

    model_config = ConfigDict(extra="forbid")

    series: list[SeenSeriesIn] = Field(max_length=NAMED_AT_MOST)


class ReleasedOut(Schema):
    """How many were let go."""

    released: int


class BoxesIn(SeenIn):
    """What is to be black, in slice pixels."""

    boxes: list[BlackBox]


@router.get("/projects/{project_id}/quarantine", response=list[HeldSeriesOut])
def list_held(request: HttpRequest, project_id: UUID) -> list[Series]:
    """The project's series that wait for somebody to look at them."""
    user = user_of(request)
    project = project_for(user, project_id)
    require(user, Action.RELEASE, project)
    return list(selectors.held_series(project))


@router.post("/projects/{project_id}/quarantine/release", response=ReleasedOut)
def post_release_several(request: HttpRequest, project_id: UUID, body: ReleaseIn) -> ReleasedOut:
    """Let several series go as they are; what has been let go, or has grown, is left alone."""
    user = user_of(request)
    project = project_for(user, project_id)
    seen = {each.series_id: each.slices for each in body.series}
    released = quarantine.release_several(project, seen=seen, by=user)
    return ReleasedOut(released=released)


@router.post("/series/{series_id}/release", response={204: None})
def post_release(request: HttpRequest, series_id: UUID, body: SeenIn) -> Status[None]:
    """Let a series go as it is; 409 not_held, being_blacked_out, series_grew."""
    user = user_of(request)
    quarantine.release(selectors.series_for(user, series_id), slices=body.slices, by=user)
    return Status(204, None)


@router.post("/series/{series_id}/black-out", response={202: BlackOutOut})
def post_black_out(request: HttpRequest, series_id: UUID, body: BoxesIn) -> Status[BlackOut]:
    """Black boxes out of a series for good, then let it go; 409 as for letting it go."""
    user = user_of(request)
    owed = quarantine.request_black_out(
        selectors.series_for(user, series_id), boxes=body.boxes, slices=body.slices, by=user
    )
    return Status(202, owed)


@router.get(
    "/series/{series_id}/preview",
    response={200: None},
    openapi_extra={
        "responses": {
            200: {
                "description": "A PNG.",
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            }
        }
    },
)
def get_preview(
    request: HttpRequest,
    series_id: UUID,
    index: Annotated[int, Query(ge=0)] = 0,
    side: Annotated[int, Query(ge=16, le=PREVIEW_PIXELS_AT_MOST)] = PREVIEW_PIXELS,
    *,
    brightest: bool = False,
) -> HttpResponse:
    """A slice as a small picture, or each pixel as bright as on any slice; 422 too_many_slices."""
    user = user_of(request)
    series = selectors.series_for(user, series_id)
    require(user, Action.RELEASE, series.study.project)
    image = _brightest(series) if brightest else _shown(selectors.slice_at(series, index), series)
    side = min(side, max(image.shape[:2]))
    content = rendering.picture(image, media_type="image/png", most=(side, side))
    response = HttpResponse(content, content_type="image/png")
    # It may show a name, or be blacked out the next time it is asked for.
    response["Cache-Control"] = "private, no-store"
    return response


def _brightest(series: Series) -> Picture:
    slices = series.slices.order_by("index")
    if slices.count() > BRIGHTEST_OF_AT_MOST:
        raise Invalid(
            f"More than {BRIGHTEST_OF_AT_MOST} slices cannot be seen at once; look through them.",
            code="too_many_slices",
        )
    return rendering.brightest(_shown(slice_, series) for slice_ in slices)


def _shown(slice_: Slice, series: Series) -> Picture:
    pixels = pixels_of(slice_)
    if series.window_centre is None or series.window_width is None:  # colour
        return np.asarray(pixels, np.uint8)
    shown = Shown(
        slice_.slope, slice_.intercept, series.window_centre, series.window_width, slice_.inverted
    )
    return rendering.grey(pixels, shown)
