"""Subjects that are merged: their studies, what comes in later, and who may do it."""

from __future__ import annotations

import json
from uuid import uuid4

import numpy as np
import pytest
from django.test import Client

from delineate.audit.chain import verify
from delineate.audit.models import Event
from delineate.errors import NotFound
from delineate.projects.models import Project, Role
from delineate.studies import subjects
from delineate.studies.models import Study, Subject, SubjectAlias
from tests.delineate.factories import (
    accept_mask,
    browser_of,
    label_of,
    lead_of,
    new_member,
    new_project,
    new_series,
    new_study,
    new_task,
)
from tests.delineate.studies.files import fates, image, send_and_ingest, zipped

pytestmark = pytest.mark.django_db

STORED = ("stored", "")


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def subject(project: Project, letter: str, *, studies: int = 1) -> Subject:
    """A subject S-AAAAAAAAAAAA, or of another letter."""
    for _ in range(studies):
        new_study(project, pseudonym=f"S-{letter * 12}")
    return Subject.objects.get(project=project, pseudonym=f"S-{letter * 12}")


def merge(lead: Client, into: Subject, *others: int):
    """The answer to a merge."""
    return lead.post(
        f"/api/subjects/{into.id}/merge", {"others": others}, content_type="application/json"
    )


def code_of(answer) -> tuple[int, str]:
    """A refusal's status and code."""
    return answer.status_code, answer.json()["error"]["code"]


def test_studies_move_and_the_other_pseudonym_becomes_an_alias(project, lead):
    a, b, c = subject(project, "A"), subject(project, "B", studies=2), subject(project, "C")
    answer = merge(lead, a, b.id, c.id)
    assert answer.json() == {"id": a.id, "pseudonym": a.pseudonym}
    assert list(Subject.objects.all()) == [a]
    assert a.studies.count() == 4
    assert {alias.pseudonym for alias in a.aliases.all()} == {b.pseudonym, c.pseudonym}


def test_the_trail_says_what_moved_and_names_no_pseudonym(project, lead):
    a, b = subject(project, "A"), subject(project, "B", studies=2)
    merge(lead, a, b.id)
    event = Event.objects.get(action="subjects_merged")
    assert event.actor == lead_of(project).username
    assert event.data["studies"] == ["2", "3"]
    told = f"{event.subject} {json.dumps(event.data)}"
    assert a.pseudonym not in told
    assert b.pseudonym not in told
    assert verify(project.id) == Event.objects.filter(project_id=project.id).count()


def test_aliases_follow_when_their_subject_is_merged_on(project, lead):
    a, b, c = (subject(project, letter) for letter in "ABC")
    merge(lead, b, c.id)
    merge(lead, a, b.id)
    assert {alias.pseudonym for alias in a.aliases.all()} == {b.pseudonym, c.pseudonym}


def test_what_comes_in_later_goes_to_the_surviving_subject(project, lead):
    send_and_ingest(lead, project, zipped([image(patient="ONE")]))
    other = image(patient="TWO", study="1.2.4", series="1.2.4.1")
    send_and_ingest(lead, project, zipped([other]))
    one, two = (study.subject for study in Study.objects.order_by("number"))
    merge(lead, one, two.id)

    later = image(patient="TWO", study="1.2.5", series="1.2.5.1")
    again = [other, image(patient="TWO", study="1.2.4", series="1.2.4.2")]
    assert fates(send_and_ingest(lead, project, zipped([later]))) == [STORED]
    upload = send_and_ingest(lead, project, zipped(again))
    assert fates(upload) == [("duplicate", "duplicate"), STORED]
    assert list(Subject.objects.all()) == [one]
    assert one.studies.count() == 3


def test_a_study_of_two_that_are_one_is_no_mixture(project, lead):
    send_and_ingest(lead, project, zipped([image(patient="ONE")]))
    send_and_ingest(lead, project, zipped([image(patient="TWO", study="1.2.4")]))
    one, two = (study.subject for study in Study.objects.order_by("number"))
    merge(lead, one, two.id)
    both = [
        image(patient="ONE", study="1.2.5", series="1.2.5.1", z=0.0),
        image(patient="TWO", study="1.2.5", series="1.2.5.1", z=1.0),
    ]
    assert fates(send_and_ingest(lead, project, zipped(both))) == [STORED, STORED]
    assert one.studies.count() == 3


def test_what_cannot_be_merged_is_refused_by_name(project, lead):
    a, b = subject(project, "A"), subject(project, "B")
    elsewhere = subject(new_project(name="Spleens"), "B")
    assert code_of(merge(lead, a)) == (422, "nothing_to_merge")
    assert code_of(merge(lead, a, a.id)) == (422, "merge_with_itself")
    assert code_of(merge(lead, a, b.id, a.id)) == (422, "merge_with_itself")
    assert code_of(merge(lead, a, elsewhere.id)) == (422, "subject_elsewhere")
    assert code_of(merge(lead, a, b.id, 2**40)) == (422, "subject_elsewhere")
    assert code_of(merge(lead, elsewhere, a.id)) == (404, "not_found")
    assert not SubjectAlias.objects.exists()
    assert Subject.objects.count() == 3


def test_a_subject_that_has_gone_meanwhile_is_said_to_be_gone(project, lead):
    a, b = subject(project, "A"), subject(project, "B")
    merge(lead, a, b.id)
    with pytest.raises(NotFound, match="gone"):
        subjects.merge(b, others=[a.id], by=lead_of(project))


def test_one_that_is_being_erased_is_not_merged(project, lead):
    a, b = subject(project, "A"), subject(project, "B")
    subjects.erase(b, pseudonym=b.pseudonym, by=lead_of(project))
    assert code_of(merge(lead, a, b.id)) == (409, "being_erased")
    assert code_of(merge(lead, b, a.id)) == (409, "being_erased")


def test_the_list_counts_what_is_there(project, lead):
    a = subject(project, "A", studies=2)
    b = subject(project, "B")
    older, newer = a.studies.all()
    task = new_task(new_series(older))
    new_series(newer)
    mask = np.zeros((8, 10), bool)
    for index in (0, 0, 2):  # twice on the first: the newer one counts
        accept_mask(task, mask, index=index, label=label_of(project, "liver"))
    merge(lead, a, subject(project, "C").id)
    Study.objects.filter(subject=b).delete()

    first, second = lead.get(f"/api/projects/{project.id}/subjects").json()

    assert first.pop("added_at") is not None
    assert first == {
        "id": a.id,
        "pseudonym": a.pseudonym,
        "aliases": ["S-CCCCCCCCCCCC"],
        "studies": 3,
        "series": 2,
        "slices": 6,
        "accepted_masks": 2,
        "erasure": None,
    }
    assert (second["studies"], second["added_at"], second["accepted_masks"]) == (0, None, 0)


def test_the_list_says_who_is_on_the_way_out(project, lead):
    a = subject(project, "A", studies=2)
    owed = subjects.erase(a, pseudonym=a.pseudonym, by=lead_of(project))
    (listed,) = lead.get(f"/api/projects/{project.id}/subjects").json()
    assert listed["erasure"] == {
        "id": str(owed.id),
        "state": "pending",
        "studies_done": 0,
        "studies_total": 2,
    }


@pytest.mark.parametrize("role", [Role.REVIEWER, Role.ANNOTATOR])
def test_only_leads_merge_and_erase(project, role):
    browser = browser_of(new_member(project, role))
    a, b = subject(project, "A"), subject(project, "B")
    assert code_of(merge(browser, a, b.id)) == (403, "not_allowed")
    body = {"pseudonym": a.pseudonym}
    answer = browser.post(f"/api/subjects/{a.id}/erase", body, content_type="application/json")
    assert code_of(answer) == (403, "not_allowed")
    assert browser.get(f"/api/projects/{project.id}/subjects").status_code == 403
    assert browser.get(f"/api/projects/{uuid4()}/subjects").status_code == 404
