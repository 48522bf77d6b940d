"""What a mask cost under each model, and whether first proposals get worse."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest
from django.utils import timezone

from delineate.annotation.models import MaskRevision
from delineate.audit.models import Event
from delineate.learning import agreement
from delineate.learning.models import Agreement
from delineate.registry.models import Deployment
from tests.delineate import factories

NEW = "cd" * 32
MONDAY = date(2026, 11, 23)


def rectangle(width: int) -> np.ndarray:
    """A mask of 8 x 10 whose Dice with another is known."""
    mask = np.zeros((8, 10), bool)
    mask[2:6, :width] = True
    return mask


@pytest.fixture
def task(project):
    """A task to accept masks of."""
    return factories.new_task(factories.new_series(factories.new_study(project, pseudonym="S-X")))


def accept(task, *, proposal, digest, at, points=1, box=True):
    """Somebody accepts eight columns, the model having proposed other ones."""
    label = factories.label_of(task.series.study.project, "liver")
    factories.accept_mask(
        task,
        rectangle(8),
        index=0,
        label=label,
        model_digest=digest,
        hand_drawn_share=0.25,
        at=at,
        first_proposal=None if proposal is None else rectangle(proposal),
        prompts={
            "points": [{"x": 1, "y": 1, "positive": True}] * points,
            "box": {"x0": 0, "y0": 0, "x1": 1, "y1": 1} if box else None,
        },
    )


def test_dice_and_clicks_are_worked_out_once(project, model, task):
    accept(task, proposal=4, digest=model.digest, at=timezone.now(), points=2)
    accept(task, proposal=None, digest="", at=timezone.now(), points=0, box=False)
    assert agreement.work_out() == MaskRevision.objects.count()
    assert agreement.work_out() == 0
    first, second = Agreement.objects.filter(revision__task=task).order_by("revision__number")
    assert first.dice == pytest.approx(2 * 4 / (4 + 8))
    assert first.clicks == 3
    assert second.dice is None
    assert second.clicks == 0


def test_each_model_has_its_period(project, model, task):
    factories.new_model(NEW, is_default=False)
    changed = timezone.now() - timedelta(days=1)
    project.created_at = changed - timedelta(days=9)
    project.save()
    Deployment.objects.create(project=project, model_id=NEW, since=changed)
    for hours, digest, proposal, points in (
        (-5, model.digest, 4, 5),
        (-4, model.digest, 4, 3),
        (-3, model.digest, 4, 4),
        (2, NEW, 8, 1),
        (3, model.digest, 4, 9),  # a session that was in progress
    ):
        at = changed + timedelta(hours=hours)
        accept(task, proposal=proposal, digest=digest, at=at, points=points)
    agreement.work_out()
    before, after = agreement.periods(project)
    assert (before["masks"], before["clicks"]) == (3, 5)
    assert before["first_dice"] == pytest.approx(2 / 3)
    assert before["until"] == after["since"] == changed
    assert (after["masks"], after["clicks"], after["first_dice"]) == (1, 2, 1.0)
    assert after["until"] is None
    assert after["hand_drawn"] == 0.25


def test_a_fall_is_told_by_label_and_by_scanner(project, model, task):
    instance = task.series.slices.get(index=0).instance
    instance.header["00080070"] = {"vr": "LO", "Value": ["ACME"]}
    instance.header["00081090"] = {"vr": "LO", "Value": ["CT 9000"]}
    instance.save()
    for weeks_ago, proposal in ((3, 8), (2, 8), (1, 8), (0, 4)):
        day = MONDAY - timedelta(weeks=weeks_ago)
        at = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.now().tzinfo)
        for _ in range(agreement.LEAST_MASKS):
            accept(task, proposal=proposal, digest=model.digest, at=at)
    agreement.work_out()
    lines = agreement.drift(project, today=MONDAY + timedelta(days=2))
    assert [(line["by"], line["name"], line["falls"]) for line in lines] == [
        ("label", "liver", True),
        ("scanner", "ACME CT 9000", True),
    ]
    assert [point["masks"] for point in lines[0]["points"]] == [10, 10, 10, 10]
    assert "0.67" in lines[0]["sentence"]
    assert "1.00" in lines[0]["sentence"]
    agreement.notice_falls(project, today=MONDAY)
    agreement.notice_falls(project, today=MONDAY + timedelta(days=3))
    told = Event.objects.filter(project_id=project.id, action="drift_noticed")
    assert [event.subject for event in told.order_by("number")] == [
        "label liver",
        "scanner ACME CT 9000",
    ]
    assert agreement.fallen(project, today=MONDAY)[1].startswith("liver: It falls: ")
    # Nobody is told of the same fall for ever.
    assert agreement.fallen(project, today=MONDAY + timedelta(weeks=3)) == []
    later = agreement.drift(project, today=MONDAY + timedelta(weeks=4))
    assert not any(line["falls"] for line in later)


def test_few_masks_are_no_fall(project, model, task):
    for weeks_ago, proposal in ((1, 8), (0, 4)):
        day = MONDAY - timedelta(weeks=weeks_ago)
        at = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.now().tzinfo)
        accept(task, proposal=proposal, digest=model.digest, at=at)
    agreement.work_out()
    assert not any(line["falls"] for line in agreement.drift(project, today=MONDAY))
    assert agreement.drift(factories.new_project("spleen"), today=MONDAY) == []
