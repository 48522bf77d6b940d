"""What an accepted mask cost, and how good the first proposal was: by model, and by week."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet

from delineate.annotation.models import MaskRevision
from delineate.learning.models import Agreement
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion
from mlworker.contract import masks
from mlworker.contract.masks import Mask, RunLengths

AT_ONCE: Final = 300
# A week falls when its mean is so much below that of the weeks before, both of enough masks.
FALL: Final = 0.05
LEAST_MASKS: Final = 10
WEEKS: Final = 26
_MANUFACTURER, _MODEL_NAME = "00080070", "00081090"


def work_out() -> int:
    """Agreements of revisions that have none yet; how many."""
    missing = MaskRevision.objects.filter(agreement__isnull=True).select_related("slice__instance")
    made = [_agreement(revision) for revision in missing.order_by("at")[:AT_ONCE]]
    Agreement.objects.bulk_create(made, ignore_conflicts=True)
    return len(made)


def dice_of(one: Mask, other: Mask) -> float:
    """Of two masks of one size; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


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
    lines: dict[tuple[str, str], dict[date, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.select_related("revision__label"):
        assert row.dice is not None, "the others were left out"
        week = _monday(row.revision.at.date())
        lines["label", row.revision.label.name][week].append(row.dice)
        if row.scanner:
            lines["scanner", row.scanner][week].append(row.dice)
    told = [_line(by, name, weeks, today=today) for (by, name), weeks in sorted(lines.items())]
    return sorted(told, key=lambda line: not line["falls"])


def _line(by: str, name: str, weeks: dict[date, list[float]], *, today: date) -> dict[str, Any]:
    points = [
        {"week": week, "masks": len(weeks[week]), "dice": statistics.fmean(weeks[week])}
        for week in sorted(weeks)
    ]
    *before, last = sorted(weeks)
    earlier = [dice for week in before for dice in weeks[week]]
    falls = False
    sentence = f"{len(weeks[last])} masks in the week of {last:%d %B}."
    if len(earlier) >= LEAST_MASKS and len(weeks[last]) >= LEAST_MASKS:
        was, now = statistics.fmean(earlier), statistics.fmean(weeks[last])
        # News only as long as it is: an old fall that nobody followed is no alarm for ever.
        falls = now < was - FALL and _monday(today) - last <= timedelta(weeks=2)
        sentence = f"First proposals reach {now:.2f} Dice, after {was:.2f} in the weeks before."
        if falls:
            sentence = f"It falls: {sentence[0].lower()}{sentence[1:]}"
    return {"by": by, "name": name, "points": points, "falls": falls, "sentence": sentence}


def _answered(project: Project) -> list[tuple[ModelVersion, datetime, datetime | None]]:
    """Each model's time, the default model's first."""
    deployments = list(project.deployments.select_related("model").order_by("since"))
    found = [(each.model, each.since, each.until) for each in deployments]
    default = ModelVersion.objects.filter(is_default=True).first()
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
        dice = dice_of(first, last)
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
