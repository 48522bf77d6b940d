"""Another model answers, and the way back."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from delineate import storage
from delineate.annotation.transitions import State
from delineate.audit.models import Event
from delineate.errors import Conflict, NotAllowed, NotFound
from delineate.jobs import JobState
from delineate.learning import promotion, selectors, services
from delineate.learning.models import Change, PromotionState
from delineate.projects.models import Role
from delineate.registry.models import Deployment
from delineate.registry.selectors import active_digest
from delineate.studies import encoding
from delineate.studies.models import Encoding, Slice
from mlworker.contract.artifacts import pack_array
from tests.delineate import factories

NEW = "cd" * 32
NEWER = "ef" * 32


@pytest.fixture
def newer(project):
    """Another model."""
    return factories.new_model(NEW, is_default=False)


@pytest.fixture
def open_task(project):
    """A task of three slices that somebody may be at work on."""
    series = factories.new_series(factories.new_study(project, pseudonym="S-OPEN"))
    return factories.new_task(series, state=State.OPEN)


def encode(series, digest, *, state=JobState.DONE):
    """As the worker would."""
    for slice_ in series.slices.all():
        made, _ = Encoding.objects.update_or_create(
            slice=slice_,
            model_digest=digest,
            defaults={
                "state": state,
                "embedding_key": f"embeddings/{digest}/{slice_.id}",
                "priority": 6,
            },
        )
        storage.put(made.embedding_key, pack_array(np.zeros(3, np.float16)))


def promote(project, digest, change=Change.PIN):
    """By the lead."""
    return services.promote(project, digest=digest, change=change, by=factories.lead_of(project))


def test_a_model_answers_once_the_open_tasks_are_prepared(project, model, newer, open_task):
    made = promote(project, NEW)
    assert (made.state, made.prepared, made.total) == (PromotionState.PREPARING, 0, 3)
    assert active_digest(project) == model.digest
    owed = Encoding.objects.filter(model_digest=NEW)
    assert set(owed.values_list("slice__series", flat=True)) == {open_task.series_id}

    encode(open_task.series, NEW)
    promotion.sweep()

    made.refresh_from_db()
    assert (made.state, made.prepared) == (PromotionState.DONE, 3)
    assert active_digest(project) == NEW
    (event,) = Event.objects.filter(action="model_answers", project_id=project.id)
    assert event.data == {"change": "pin", "previous": model.digest}
    # What is likely to be opened later comes after that, by itself.
    encoding.request_missing()
    assert Encoding.objects.filter(model_digest=NEW).count() == Slice.objects.count()


def test_a_slice_that_cannot_be_prepared_holds_nobody_up(project, newer, open_task):
    made = promote(project, NEW)
    encode(open_task.series, NEW, state=JobState.FAILED)
    promotion.sweep()
    made.refresh_from_db()
    assert made.state == PromotionState.DONE


def test_other_projects_keep_their_model(project, model, newer):
    other = factories.new_project("spleen")
    promote(project, NEW)
    assert active_digest(project) == NEW
    assert active_digest(other) == model.digest


def test_a_roll_back_is_the_same_act_and_takes_no_preparation(project, model, newer, open_task):
    encode(open_task.series, model.digest)
    promote(project, NEW)
    encode(open_task.series, NEW)
    promotion.sweep()
    assert promotion.roll_back_target(project) == model

    back = services.promote(
        project, digest=None, change=Change.ROLL_BACK, by=factories.lead_of(project)
    )

    assert back.state == PromotionState.DONE
    assert active_digest(project) == model.digest
    assert [each.until is None for each in project.deployments.order_by("since")] == [False, True]
    assert promotion.roll_back_target(project) == newer


def test_a_later_choice_replaces_one_that_is_being_prepared(project, newer, open_task):
    first = promote(project, NEW)
    factories.new_model(NEWER, is_default=False)
    promote(project, NEWER)
    first.refresh_from_db()
    assert first.state == PromotionState.REPLACED
    encode(open_task.series, NEW)
    promotion.sweep()
    assert active_digest(project) != NEW


def test_embeddings_of_models_long_replaced_are_taken_back(project, model, newer, open_task):
    factories.new_model(NEWER, is_default=False)
    digests = (model.digest, NEW, NEWER)
    for digest in digests:
        encode(open_task.series, digest)
    promote(project, NEW)
    promote(project, NEWER)
    keys = dict(Encoding.objects.values_list("embedding_key", "model_digest"))
    promotion.sweep()
    assert set(Encoding.objects.values_list("model_digest", flat=True)) == {NEW, NEWER}
    assert {digest for key, digest in keys.items() if storage.exists(key)} == {NEW, NEWER}


def test_sessions_of_a_model_just_replaced_keep_their_embeddings(project, model, newer, open_task):
    factories.new_model(NEWER, is_default=False)
    for digest in (model.digest, NEW, NEWER):
        encode(open_task.series, digest)
    promote(project, NEW)
    promote(project, NEWER)
    promote(project, model.digest)
    promotion.sweep()
    assert Encoding.objects.filter(model_digest=NEW).exists()  # replaced a moment ago
    Deployment.objects.exclude(until=None).update(until=timezone.now() - timedelta(days=2))
    Deployment.objects.filter(model_id=NEWER).update(until=timezone.now() - timedelta(days=1))
    promotion.sweep()
    assert set(Encoding.objects.values_list("model_digest", flat=True)) == {NEWER, model.digest}


@pytest.mark.parametrize(
    ("digest", "change", "code"),
    [
        ("ab" * 32, Change.PIN, "already_active"),
        ("00" * 32, Change.PIN, "unknown_model"),
        (None, Change.ROLL_BACK, "nothing_to_roll_back_to"),
    ],
)
def test_what_cannot_be_promoted_is_refused_by_name(project, digest, change, code):
    with pytest.raises((Conflict, NotFound)) as refusal:
        promote(project, digest, change)
    assert refusal.value.code == code


def test_only_leads_decide(project, newer):
    with pytest.raises(NotAllowed):
        services.promote(
            project,
            digest=NEW,
            change=Change.PIN,
            by=factories.new_member(project, Role.REVIEWER),
        )


def test_the_timeline_says_who_answers_and_where_a_roll_back_goes(project, model, newer):
    promote(project, NEW)
    told = {each["digest"]: each for each in selectors.models_of(project)}
    assert told[NEW]["is_active"]
    assert told[NEW]["answered"][0]["until"] is None
    assert told[model.digest]["is_roll_back"]
    assert told[model.digest]["is_default"]
    assert "from" in selectors.card_of(project, digest=NEW)
