"""What the front door cannot reach yet, or cannot show."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from delineate.accounts.models import User
from delineate.annotation.models import Draft, Task
from delineate.errors import Conflict, NotFound
from delineate.projects.models import Label, Role
from delineate.projects.services import add_member, create_project, remove_label, remove_member
from delineate.studies.models import Instance, Series, Slice, Study, Subject


def use(label: Label) -> None:
    """Begin to delineate ``label`` on a slice."""
    project = label.project
    subject = Subject.objects.create(project=project, pseudonym="S-1")
    study = Study.objects.create(project=project, subject=subject, number=1, study_uid="2.25.1")
    series = Series.objects.create(
        study=study, series_uid="2.25.2", modality="CT", rows=4, columns=4
    )
    instance = Instance.objects.create(
        series=series, sop_instance_uid="2.25.3", sop_class_uid="1.2", header={}
    )
    of_series = Slice.objects.create(
        series=series, instance=instance, index=0, pixels_key="x", pixels_digest="0" * 64
    )
    Draft.objects.create(task=Task.objects.create(series=series), slice=of_series, label=label)


def test_a_label_in_use_stays(team):
    label = team.project.labels.get()
    use(label)
    with pytest.raises(Conflict) as refusal:
        remove_label(label, by=team.lead)
    assert refusal.value.code == "label_in_use"
    assert Label.objects.filter(pk=label.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_two_leads_who_remove_each_other_at_once_leave_one():
    ann, ben = (User.objects.create(username=name) for name in ("ann", "ben"))
    project = create_project("Livers", by=ann)
    add_member(project, username="ben", role=Role.LEAD, by=ann)
    start = threading.Barrier(2)

    def remove(by: User, other: User) -> None:
        start.wait()
        try:
            remove_member(project, user_id=other.pk, by=by)
        # NotFound: the other was quicker, and whoever asks is no member any more.
        except (Conflict, NotFound):
            pass
        finally:
            connections.close_all()

    threads = [threading.Thread(target=remove, args=pair) for pair in ((ann, ben), (ben, ann))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert project.memberships.filter(role=Role.LEAD).count() == 1
