"""What an accepted mask cost, and how good the first proposal was: by model, and by week."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from django.db import transaction
from django.db.models import Avg, Count, DateField, QuerySet
from django.db.models.functions import TruncWeek
from django.utils import timezone

from delineate import live
from delineate.annotation.models import MaskRevision
from delineate.audit import log as audit
from delineate.learning.models import Agreement, DriftNotice
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion
from delineate.registry.selectors import default_model
from mlworker.contract import masks
from mlworker.contract.masks import RunLengths

AT_ONCE: Final = 300
# A week falls when its mean is so much below that of the weeks before, both of enough masks.
FALL: Final = 0.05
LEAST_MASKS: Final = 10
WEEKS: Final = 26
NEWS: Final = timedelta(weeks=2)  # for which a fall is worth a notice
_MANUFACTURER, _MODEL_NAME = "00080070", "00081090"


def work_out() -> int:
    """Agreements of revisions that have none yet; how many. Leads are told of what falls."""
    missing = MaskRevision.objects.filter(agreement__isnull=True).select_related(
        "slice__instance", "task__series__study__project"
    )
    revisions = list(missing.order_by("at")[:AT_ONCE])
    Agreement.objects.bulk_create(map(_agreement, revisions), ignore_conflicts=True)
    projects = {each.task.series.study.project_id: each for each in revisions}
    for revision in projects.values():
        notice_falls(revision.task.series.study.project, today=timezone.now().date())
    return len(revisions)


def notice_falls(project: Project, *, today: date) -> None:
    """Note each week in which first proposals fall, once."""
    for line in drift(project, today=today):
        if not line["falls"]:
            continue
        with transaction.atomic():
            notice, is_new = DriftNotice.objects.get_or_create(
                project=project,
                by=line["by"],
                name=line["name"],
                week=line["points"][-1]["week"],
                defaults={"sentence": line["sentence"]},
            )
            if is_new:
                audit.drift_noticed(
                    project.id, by=notice.by, name=notice.name, sentence=notice.sentence
                )
                live.tell(project.id, "learning")


def fallen(project: Project, *, today: date) -> list[str]:
    """What leads are to look at: a sentence for each label or scanner that fell lately."""
    lately = project.drift_notices.filter(week__gte=_monday(today) - NEWS)
    return [f"{notice.name}: {notice.sentence}" for notice in lately]


def periods(project: Project) -> list[dict[str, Any]]:
    """Medians over the masks accepted while each model answered, in their order."""
    found = []
    for model, since, until in _answered(project):
        own = _of(project).filter(revision__model_digest=model.digest, revision__at__gte=since)
        if until is not None:
            own = own.filter(revision__at__lt=until)
        rows = own.select_related("revision").only(
            "clicks", "dice", "revision__active_seconds", "revision__hand_drawn_share"
        )
        found.append(
            {
                "model": {"digest": model.digest, "name": model.name},
                "since": since,
                "until": until,
                "masks": len(rows),
                "clicks": _median(row.clicks for row in rows),
                "seconds": _median(row.revision.active_seconds for row in rows),
                "first_dice": _median(row.dice for row in rows),
                "hand_drawn": _median(row.revision.hand_drawn_share for row in rows),
            }
        )
    return found


def drift(project: Project, *, today: date) -> list[dict[str, Any]]:
    """Weekly means of the first proposal's Dice, by label and by scanner; who falls comes first."""
    since = _monday(today) - timedelta(weeks=WEEKS)
    rows = _of(project).filter(dice__isnull=False, revision__at__date__gte=since)
    told = [
        _line(by, name, [_Week(*week) for _, *week in weeks], today=today)
        for by, field in (("label", "revision__label__name"), ("scanner", "scanner"))
        for name, weeks in groupby(
            rows.annotate(week=TruncWeek("revision__at", output_field=DateField()))
            .values_list(field, "week")
            .annotate(Count("id"), Avg("dice"))
            .order_by(field, "week"),
            key=itemgetter(0),
        )
        if name
    ]
    return sorted(told, key=lambda line: not line["falls"])


class _Week(NamedTuple):
    monday: date
    masks: int
    dice: float


def _line(by: str, name: str, weeks: Sequence[_Week], *, today: date) -> dict[str, Any]:
    points = [{"week": week.monday, "masks": week.masks, "dice": week.dice} for week in weeks]
    *before, last = weeks
    earlier = sum(week.masks for week in before)
    falls = False
    sentence = f"{last.masks} masks in the week of {last.monday:%d %B}."
    if earlier >= LEAST_MASKS and last.masks >= LEAST_MASKS:
        was = sum(week.masks * week.dice for week in before) / earlier
        # News only as long as it is: an old fall that nobody followed is no alarm for ever.
        falls = last.dice < was - FALL and _monday(today) - last.monday <= NEWS
        begins = "It falls: first" if falls else "First"
        sentence = (
            f"{begins} proposals reach {last.dice:.2f} Dice, after {was:.2f} in the weeks before."
        )
    return {"by": by, "name": name, "points": points, "falls": falls, "sentence": sentence}


def _answered(project: Project) -> list[tuple[ModelVersion, datetime, datetime | None]]:
    """Each model's time, the default model's first."""
    deployments = list(project.deployments.select_related("model").order_by("since"))
    found = [(each.model, each.since, each.until) for each in deployments]
    default = default_model()
    if default is not None:
        until = deployments[0].since if deployments else None
        found.insert(0, (default, project.created_at, until))
    return found


def _of(project: Project) -> QuerySet[Agreement]:
    return Agreement.objects.filter(revision__task__series__study__project=project)


def _agreement(revision: MaskRevision) -> Agreement:
    dice = None
    if revision.first_proposal is not None:
        first, last = (
            masks.decode(RunLengths.model_validate(each))
            for each in (revision.first_proposal, revision.mask)
        )
        dice = masks.dice(first, last)
    prompts = revision.prompts or {}
    header = revision.slice.instance.header
    scanner = " ".join(filter(None, (_text(header, _MANUFACTURER), _text(header, _MODEL_NAME))))
    return Agreement(
        revision=revision,
        dice=dice,
        clicks=len(prompts.get("points") or ()) + bool(prompts.get("box")),
        scanner=scanner[:200],
    )


def _text(header: dict[str, Any], tag: str) -> str:
    values: Sequence[object] = header.get(tag, {}).get("Value") or ()
    return str(values[0]).strip() if values else ""


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(statistics.median(known)) if known else None


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())
