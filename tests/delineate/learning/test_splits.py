"""A subject's part is for ever."""

from __future__ import annotations

import pytest

from delineate.audit.models import Event
from delineate.errors import Conflict, NotAllowed, NotFound
from delineate.learning import services, snapshot, splits
from delineate.learning.models import LearningSettings, Part, SubjectPart
from delineate.projects.models import Role
from delineate.studies import subjects
from tests.delineate import factories
from tests.delineate.learning.conftest import add_subject


def held_out(project):
    """The pseudonyms of who is held out."""
    return {name for name, part in splits.known(project).items() if part == Part.HELD_OUT}


def test_a_quarter_is_held_out_and_stays_there(project, model):
    snapshot.freeze(project, parent=model)
    first = splits.known(project)
    assert len(first) == 8
    assert len(held_out(project)) == 2

    for number in range(8, 16):
        add_subject(project, f"S-{number:012}")
    snapshot.freeze(project, parent=model)

    second = splits.known(project)
    assert {name: second[name] for name in first} == first
    assert len(held_out(project)) == 4


def test_the_share_is_the_projects(project, model):
    LearningSettings.objects.create(project=project, held_out_share=0.5)
    snapshot.freeze(project, parent=model)
    assert len(held_out(project)) == 4


def test_a_held_out_subject_never_enters_training(project, model):
    snapshot.freeze(project, parent=model)
    judging = held_out(project)
    add_subject(project, "S-000000000008")
    frozen = snapshot.freeze(project, parent=model)
    assert judging
    assert not frozen.items.filter(pseudonym__in=judging, part=Part.TRAIN).exists()
    assert set(frozen.items.filter(part=Part.HELD_OUT).values_list("pseudonym", flat=True)) == (
        held_out(project)
    )


def test_merging_across_the_parts_holds_both_out(project, model):
    snapshot.freeze(project, parent=model)
    out = min(held_out(project))
    learnt = min(name for name, part in splits.known(project).items() if part == Part.TRAIN)
    rows = {each.pseudonym: each for each in project.subjects.all()}

    subjects.merge(into=rows[learnt], others=[rows[out].id], by=factories.lead_of(project))
    frozen = snapshot.freeze(project, parent=model)

    assert splits.known(project)[learnt] == Part.HELD_OUT
    assert frozen.items.filter(pseudonym=learnt, part=Part.HELD_OUT).count() == 6
    assert not frozen.items.filter(pseudonym=learnt, part=Part.TRAIN).exists()
    assert SubjectPart.objects.get(project=project, pseudonym=learnt).part == Part.HELD_OUT


def test_a_published_split_is_given_before_anything_is_learnt(project, model):
    lead = factories.lead_of(project)
    wanted = ["S-000000000001", "S-000000000002"]
    services.give_part(project, pseudonyms=wanted, part=Part.HELD_OUT, by=lead)
    snapshot.freeze(project, parent=model)
    assert held_out(project) >= set(wanted)
    event = Event.objects.filter(action="parts_given").first()
    assert event is not None
    assert event.actor == lead.username
    with pytest.raises(Conflict) as refusal:
        services.give_part(project, pseudonyms=wanted, part=Part.TRAIN, by=lead)
    assert refusal.value.code == "part_given"
    services.give_part(project, pseudonyms=wanted, part=Part.HELD_OUT, by=lead)  # is there already


def test_a_part_is_given_by_leads_to_subjects_that_are_there(project):
    with pytest.raises(NotAllowed):
        services.give_part(
            project,
            pseudonyms=["S-000000000001"],
            part=Part.TRAIN,
            by=factories.new_member(project, Role.REVIEWER),
        )
    with pytest.raises(NotFound) as refusal:
        services.give_part(
            project, pseudonyms=["S-nobody"], part=Part.TRAIN, by=factories.lead_of(project)
        )
    assert refusal.value.code == "unknown_subject"
