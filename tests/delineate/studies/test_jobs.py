"""What is owed is done, whatever dies: between commit and queue, in mid-ingest, at the worker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import connection
from django.utils import timezone

from delineate import storage
from delineate.audit.models import Event
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER, JobState
from delineate.projects.models import Project
from delineate.studies import encoding, ingest, tasks
from delineate.studies.models import Encoding, Instance, Reference, Slice, Study, Upload
from mlworker.contract import broker
from mlworker.contract.artifacts import array_digest, unpack_array
from mlworker.contract.messages import EncodedSlice, EncodeSlices, SlicesEncoded
from tests.delineate.factories import (
    browser_of,
    lead_of,
    new_model,
    new_project,
    new_series,
    new_study,
    new_uid,
)
from tests.delineate.studies.files import fates, image, send, zipped
from tests.delineate.studies.reference_files import dose
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

MODEL = "ab" * 32
PRIORITIES = (broker.PRIORITY_NOW, broker.PRIORITY_SOON, broker.PRIORITY_LATER)
LONG = 400  # slices: no ingest ends while its first is noticed
LONG_AGO = 2 * SILENT_AFTER


@pytest.fixture(autouse=True)
def queues(services):
    """The broker, empty: what earlier tests sent is nobody's; no worker has been seen."""
    with redis.Redis.from_url(services.redis_url) as client:
        _lose_messages(client)
        client.delete(f"heartbeat:{EncodeSlices.queue}")
        yield client


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


def test_an_upload_whose_message_was_lost_is_ingested_after_a_sweep(project, queues):
    upload = send(browser_of(lead_of(project)), project, zipped([image()]))
    _lose_messages(queues)
    _let_time_pass()

    tasks.sweep_jobs_task()
    assert _run_what_is_queued() == ["delineate.ingest_upload"]

    upload.refresh_from_db()
    assert (upload.state, fates(upload)) == ("done", [("stored", "")])


def test_the_sweep_leaves_what_is_young_or_done_alone(project, queues):
    send(browser_of(lead_of(project)), project, zipped([image()]))
    _lose_messages(queues)
    tasks.sweep_jobs_task()
    assert _run_what_is_queued() == []
    Upload.objects.update(state=JobState.DONE)
    _let_time_pass()
    tasks.sweep_jobs_task()
    assert _run_what_is_queued() == []


def test_an_ingest_that_is_killed_is_completed_by_the_next(project):
    upload = _send_long_upload(project)
    child = _ingest_in_a_child(upload)
    try:
        asyncio.run(until(lambda: _objects("studies") or child.poll() is not None))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    _complete_what_was_killed(upload)


def _send_long_upload(project: Project, *, sop: str | None = None) -> Upload:
    files = [
        image(z=float(z), seed=z, InstanceNumber=z, sop=sop if z == 0 else None)
        for z in range(LONG)
    ]
    return send(browser_of(lead_of(project)), project, zipped(files))


@contextlib.contextmanager
def _stopped_in_mid_ingest(upload: Upload) -> Iterator[None]:
    """Ingest in a process that is held up after its first slice while the context lasts."""
    there = set(_objects("studies"))
    child = _ingest_in_a_child(upload)
    try:
        asyncio.run(until(lambda: set(_objects("studies")) > there or child.poll() is not None))
        child.send_signal(signal.SIGSTOP)
        upload.refresh_from_db()
        assert upload.state == "running", "it was stopped in mid-ingest"
        yield
        child.send_signal(signal.SIGCONT)
        assert child.wait(timeout=60) == 0
    finally:
        child.kill()
        child.wait()


def _assert_every_slice_has_its_pixels() -> None:
    for slice_ in Slice.objects.all():
        pixels = unpack_array(storage.get(slice_.pixels_key))
        assert array_digest(pixels) == slice_.pixels_digest
    assert {path.name for path in _objects("studies")} == {
        Path(key).name for key in Slice.objects.values_list("pixels_key", flat=True)
    }


def _ingest_in_a_child(upload: Upload) -> subprocess.Popen[bytes]:
    database = connection.settings_dict
    url = (
        f"postgres://{database['USER']}:{database['PASSWORD']}"
        f"@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    )
    code = (
        "import django, sys, uuid; django.setup(); "
        "from delineate.studies import ingest; ingest.ingest(uuid.UUID(sys.argv[1]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(upload.id)],
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _complete_what_was_killed(upload: Upload) -> None:
    upload.refresh_from_db()
    assert (upload.state, upload.attempt) == ("running", 1), "it was killed in mid-ingest"
    assert not Study.objects.exists()
    # A write that was cut off, whether or not the kill met one.
    folder = next(iter(_objects("studies"))).parent
    (folder / ".writing-cut-off").write_bytes(b"half a sl")
    for left in folder.glob(".writing-*"):
        past = time.time() - LONG_AGO.total_seconds()
        os.utime(left, (past, past))
    _let_time_pass()

    ingest.ingest(upload.id)

    upload.refresh_from_db()
    assert (upload.state, upload.attempt) == ("done", 2)
    assert fates(upload) == [("stored", "")] * LONG
    assert (Study.objects.count(), Instance.objects.count(), Slice.objects.count()) == (
        1,
        LONG,
        LONG,
    )
    assert Event.objects.filter(action="study_ingested").count() == 1
    assert {path.name for path in _objects("studies")} == {
        Path(key).name for key in Slice.objects.values_list("pixels_key", flat=True)
    }
    assert not _objects("uploads")


@pytest.mark.parametrize(("file", "code"), [(image, ""), (dose, "kept_as_reference")])
def test_what_a_killed_ingest_had_committed_is_reported_as_stored(project, file, code):
    lead, blob = browser_of(lead_of(project)), zipped([file()])
    upload = send(lead, project, blob)
    ingest.ingest(upload.id)
    storage.put(upload.blob_key(0), blob)
    Upload.objects.update(state=JobState.RUNNING, report=[])
    _let_time_pass()

    ingest.ingest(upload.id)

    upload.refresh_from_db()
    assert (upload.state, fates(upload)) == ("done", [("stored", code)])
    assert Slice.objects.count() + Reference.objects.count() == 1


def test_an_ingest_that_is_killed_before_its_last_word_keeps_its_report(project):
    upload = send(browser_of(lead_of(project)), project, zipped([image(), b"no image"]))
    ingest.ingest(upload.id)
    Upload.objects.update(state=JobState.RUNNING)
    _let_time_pass()

    ingest.ingest(upload.id)

    upload.refresh_from_db()
    assert upload.state == "done"
    assert fates(upload) == [("stored", ""), ("refused", "not_dicom")]


def test_two_uploads_of_one_study_never_mix_their_pixels(project):
    lead, sop = browser_of(lead_of(project)), new_uid()
    upload = _send_long_upload(project, sop=sop)
    with _stopped_in_mid_ingest(upload):
        other = send(lead, project, zipped([image(sop=sop, seed=LONG + 1)]))
        ingest.ingest(other.id)
    other.refresh_from_db()
    upload.refresh_from_db()
    assert (other.state, fates(other)) == ("done", [("stored", "")])
    assert upload.state == "done"
    assert Counter(fates(upload)) == {("stored", ""): LONG - 1, ("refused", "uid_conflict"): 1}
    _assert_every_slice_has_its_pixels()


def test_a_study_that_is_deleted_while_a_series_joins_it_is_made_anew(project):
    lead = browser_of(lead_of(project))
    ingest.ingest(send(lead, project, zipped([image(series="1.2.3.9")])).id)
    before = Study.objects.get()
    upload = _send_long_upload(project)
    with _stopped_in_mid_ingest(upload):
        assert lead.delete(f"/api/studies/{before.id}").status_code == 204
    upload.refresh_from_db()
    assert (upload.state, set(fates(upload))) == ("done", {("stored", "")})
    assert Study.objects.get().id != before.id
    assert Slice.objects.count() == LONG
    _assert_every_slice_has_its_pixels()


def test_a_message_that_comes_twice_is_ingested_once(project):
    upload = send(browser_of(lead_of(project)), project, zipped([image()]))
    tasks.ingest_upload_task(str(upload.id))
    assert _run_what_is_queued() == ["delineate.ingest_upload"]
    assert Study.objects.count() == 1


def test_an_upload_that_kills_its_readers_is_given_up_and_its_bytes_go(project):
    upload = send(browser_of(lead_of(project)), project, zipped([image()]))
    Upload.objects.update(state=JobState.RUNNING, attempt=MAX_ATTEMPTS)
    _let_time_pass()
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert (upload.state, upload.error_code) == ("failed", "gave_up")
    assert not storage.exists(upload.blob_key(0))


def test_bytes_that_outlived_their_ingest_go_with_the_next_message(project):
    upload = send(browser_of(lead_of(project)), project, zipped([image()]))
    Upload.objects.update(state=JobState.DONE)
    ingest.ingest(upload.id)
    assert not storage.exists(upload.blob_key(0))


def test_an_ingest_that_is_alive_keeps_its_bytes(project):
    upload = send(browser_of(lead_of(project)), project, zipped([image()]))
    Upload.objects.update(state=JobState.RUNNING, attempt=1)
    ingest.ingest(upload.id)
    assert storage.exists(upload.blob_key(0))
    assert not Study.objects.exists()


def test_the_worker_has_little_at_a_time(project, queues):
    series = _series(project, slices=encoding.IN_FLIGHT + 4)
    _request(series)
    assert _in(JobState.RUNNING).count() == encoding.IN_FLIGHT
    assert sorted(_queued(queues)) == sorted(
        map(str, _in(JobState.RUNNING).values_list("id", flat=True))
    )
    encoding.dispatch()
    assert _in(JobState.RUNNING).count() == encoding.IN_FLIGHT


def test_what_comes_back_sends_the_next_by_priority(project, queues):
    _request(_series(project, slices=encoding.IN_FLIGHT + 4))
    soon = _series(project, slices=3)
    _request(soon, priority=broker.PRIORITY_SOON)
    assert not _in(JobState.RUNNING).filter(slice__series=soon).exists()

    done = list(_in(JobState.RUNNING)[:4])
    encoding.receive(_encoded(*done))

    assert set(_in(JobState.DONE)) == set(done)
    assert all(row.finished_at for row in _in(JobState.DONE))
    assert _in(JobState.RUNNING).count() == encoding.IN_FLIGHT
    assert _in(JobState.RUNNING).filter(slice__series=soon).count() == 3


def test_what_is_looked_at_goes_past_the_limit(project, queues):
    series = _series(project, slices=encoding.IN_FLIGHT + 4)
    _request(series)
    last = series.slices.last()
    encoding.request([last.id], model_digest=MODEL, priority=broker.PRIORITY_NOW)
    row = Encoding.objects.get(slice=last)
    assert (row.state, row.priority) == ("running", broker.PRIORITY_NOW)
    assert _queued(queues, priority=broker.PRIORITY_NOW) == [str(row.id)]


def test_looking_again_and_again_is_no_failed_attempt(project):
    series = _series(project, slices=1)
    for _ in range(MAX_ATTEMPTS + 1):
        _request(series, priority=broker.PRIORITY_NOW)
    _let_time_pass()
    encoding.sweep()
    assert Encoding.objects.get().state == "running"


def test_unknown_slices_are_let_pass(project):
    stranger = EncodedSlice(encoding_id=str(uuid4()))
    encoding.receive(SlicesEncoded(model_digest=MODEL, slices=(stranger,)))
    tasks.receive_worker_event_task('{"kind": "slices_encoded", "surprise": 1}')
    assert not Encoding.objects.exists()


def test_a_failure_is_recorded_and_tried_again_on_request(project):
    series = _series(project, slices=1)
    _request(series)
    row = Encoding.objects.get()
    event = _encoded(row, code="artifact_missing", message="No pixels.")
    tasks.receive_worker_event_task(event.model_dump_json())
    row.refresh_from_db()
    assert (row.state, row.error_code) == ("failed", "artifact_missing")
    assert row.error_message == "No pixels."

    _request(series)
    row.refresh_from_db()
    assert (row.state, row.attempt, row.error_code) == ("running", 2, "")


def test_what_is_done_stays_done(project):
    _request(_series(project, slices=1))
    row = Encoding.objects.get()
    encoding.receive(_encoded(row))
    encoding.receive(_encoded(row, code="worker_failed", message="Too late."))
    row.refresh_from_db()
    assert row.state == "done"


def test_what_is_done_is_made_anew_when_it_is_missing(project):
    series = _series(project, slices=1)
    _request(series)
    encoding.receive(_encoded(Encoding.objects.get()))
    encoding.request(
        [series.slices.get().id], model_digest=MODEL, priority=broker.PRIORITY_NOW, anew=True
    )
    assert Encoding.objects.get().state == "running"


def test_the_sweep_sends_again_what_is_silent(project, queues):
    _request(_series(project, slices=1))
    _lose_messages(queues)
    encoding.sweep()
    assert _queued(queues) == []
    _let_time_pass()
    _show_a_worker(queues)
    encoding.sweep()
    row = Encoding.objects.get()
    assert (row.state, row.attempt) == ("running", 2)
    assert _queued(queues) == [str(row.id)]


def test_what_was_looked_at_is_sent_again_as_urgently(project, queues):
    _request(_series(project, slices=1), priority=broker.PRIORITY_NOW)
    _lose_messages(queues)
    _let_time_pass()
    _show_a_worker(queues)
    encoding.sweep()
    assert len(_queued(queues, priority=broker.PRIORITY_NOW)) == 1


def test_while_the_worker_is_away_slices_wait(project, queues):
    _request(_series(project, slices=1))
    sent = _queued(queues)
    for _ in range(2 * MAX_ATTEMPTS):
        _let_time_pass()
        encoding.sweep()
    row = Encoding.objects.get()
    assert (row.state, row.attempt) == ("running", 1)
    assert _queued(queues) == sent


def test_an_answer_that_comes_after_giving_up_counts(project, queues):
    _request(_series(project, slices=1))
    Encoding.objects.update(state=JobState.FAILED, error_code="gave_up", error_message="Gave up.")
    encoding.receive(_encoded(Encoding.objects.get()))
    row = Encoding.objects.get()
    assert (row.state, row.error_code, row.error_message) == ("done", "", "")


def test_the_sweep_gives_up_in_the_end(project, queues):
    _request(_series(project, slices=1))
    _show_a_worker(queues)
    for _ in range(MAX_ATTEMPTS):
        _let_time_pass()
        encoding.sweep()
    row = Encoding.objects.get()
    assert (row.state, row.error_code, row.attempt) == ("failed", "gave_up", MAX_ATTEMPTS)
    _request(row.slice.series)
    row.refresh_from_db()
    assert row.state == "failed"


def test_the_sweep_requests_what_a_new_model_lacks(project):
    series = _series(project, slices=2)
    encoding.sweep()
    assert not Encoding.objects.exists()
    new_model(MODEL)
    encoding.sweep()
    assert Encoding.objects.filter(slice__series=series, state=JobState.RUNNING).count() == 2


def _series(project: Project, *, slices: int):
    pixels = np.random.default_rng(0).integers(0, 99, (slices, 4, 4), dtype=np.int16)
    return new_series(new_study(project), pixels=pixels)


def _request(series, *, priority: int = broker.PRIORITY_LATER) -> None:
    encoding.request(
        list(series.slices.values_list("id", flat=True)), model_digest=MODEL, priority=priority
    )


def _in(state: JobState):
    return Encoding.objects.filter(state=state)


def _encoded(*rows: Encoding, code=None, message: str = "") -> SlicesEncoded:
    return SlicesEncoded(
        model_digest=MODEL,
        slices=tuple(
            EncodedSlice(encoding_id=str(row.id), code=code, message=message) for row in rows
        ),
    )


def _show_a_worker(client: redis.Redis) -> None:
    client.set(f"heartbeat:{EncodeSlices.queue}", time.time())


def _let_time_pass() -> None:
    for model in (Upload, Encoding):
        model.objects.update(heartbeat_at=timezone.now() - LONG_AGO)


def _lose_messages(client: redis.Redis) -> None:
    client.delete("server", *(_list_name(priority) for priority in PRIORITIES))


def _run_what_is_queued() -> list[str]:
    """Run the server's queue to its end, as its worker would; the names of the tasks."""
    ran: list[str] = []
    with (
        current_app.connection_for_read() as link,
        link.SimpleQueue("server") as waiting,
        contextlib.suppress(queue.Empty),
    ):
        while True:
            message = waiting.get(block=False)
            name = message.headers["task"]
            current_app.tasks[name](*message.payload[0])
            message.ack()
            ran.append(name)
    return ran


def _queued(client: redis.Redis, *, priority: int = broker.PRIORITY_LATER) -> list[str]:
    """The encodings that lie in the worker's queue at a priority."""
    ids: list[str] = []
    for message in client.lrange(_list_name(priority), 0, -1):
        (payload,), _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
        ids += [item.encoding_id for item in EncodeSlices.model_validate_json(payload).items]
    return ids


def _list_name(priority: int) -> str:
    """Of the worker's queue, as kombu names it."""
    return EncodeSlices.queue + (f"\x06\x16{priority}" if priority else "")


def _objects(prefix: str) -> set[Path]:
    """Every file of the store under a prefix."""
    root = Path(settings.ENVIRONMENT.storage_url.removeprefix("file://"))
    return {path for path in (root / prefix).rglob("*") if path.is_file()}
