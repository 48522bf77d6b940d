"""What is written beside a transaction that holds the project."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest
from django.db import connection, transaction

from delineate.audit import log as audit
from delineate.errors import NotFound
from delineate.projects.locking import lock
from delineate.studies import arrivals
from delineate.studies.models import Upload, WayIn
from tests.delineate.factories import lead_of, new_project
from tests.delineate.locks import wait_until_somebody_waits_for_a_lock


@pytest.mark.django_db
def test_a_project_that_is_not_there_is_not_locked() -> None:
    with transaction.atomic(), pytest.raises(NotFound):
        lock(uuid4())


@pytest.mark.django_db(transaction=True)
def test_an_upload_arrives_while_the_holder_of_the_project_waits_to_be_audited() -> None:
    project = new_project()
    lead = lead_of(project)

    def hold() -> None:
        try:
            with transaction.atomic():
                lock(project.id)
                audit.project_renamed(project.id, by=lead, before="liver", after="Livers")
        finally:
            connection.close()

    holding = threading.Thread(target=hold)
    with transaction.atomic():
        upload = Upload(project=project, by=lead, way_in=WayIn.STOW, blob_count=1, size_bytes=1)
        upload.save(force_insert=True)
        arrivals.take_note(upload)
        holding.start()
        wait_until_somebody_waits_for_a_lock()
    holding.join()

    assert Upload.objects.filter(id=upload.id).exists()
