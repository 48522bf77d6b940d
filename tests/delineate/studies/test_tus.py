"""tus (https://tus.io/protocols/resumable-upload) by its own words, and what uploads become."""

from __future__ import annotations

import base64
import hashlib
import threading
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from delineate import storage
from delineate.audit.models import Event
from delineate.jobs import JobState
from delineate.projects.models import Project, Role
from delineate.studies import ingest, tasks, transfers
from delineate.studies.expiry import KEPT_FOR
from delineate.studies.models import Study, Upload
from delineate.studies.parts import part_key
from tests.delineate.factories import browser_of, lead_of, new_member, new_project
from tests.delineate.studies.files import fates, image, send, zipped

pytestmark = pytest.mark.django_db

PART = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def test_what_comes_in_parts_is_ingested_as_if_it_had_come_at_once(project, lead):
    data = zipped([image(z=0.0, seed=0), image(z=1.0, seed=1)])
    address = _begin(lead, project, len(data))
    offset = 0
    for size in (100, 1, len(data) - 101):
        answer = _append(lead, address, data[offset : offset + size], offset=offset)
        offset += size
        assert (answer.status_code, answer["Upload-Offset"]) == (204, str(offset))
        assert answer["Tus-Resumable"] == "1.0.0"
        assert lead.head(address, headers=TUS)["Upload-Offset"] == str(offset)
    upload = Upload.objects.get()
    assert (upload.state, upload.blob_count, upload.size_bytes) == ("pending", 1, len(data))

    ingest.ingest(upload.id)

    upload.refresh_from_db()
    assert (upload.state, fates(upload)) == ("done", [("stored", ""), ("stored", "")])
    assert not storage.exists(upload.blob_prefix.rstrip("/"))
    event = Event.objects.get(action="upload_received")
    assert event.data == {"way_in": "browser", "files": 1, "bytes": len(data)}


def test_the_server_says_what_it_can(project, lead, settings):
    answer = lead.options(f"/api/projects/{project.id}/transfers")
    assert answer.status_code == 204
    assert answer["Tus-Version"] == "1.0.0"
    assert answer["Tus-Extension"] == "creation,expiration,termination,checksum"
    assert answer["Tus-Max-Size"] == str(settings.ENVIRONMENT.max_upload_bytes)
    assert answer["Tus-Checksum-Algorithm"] == "sha1,sha256"


def test_a_new_upload_says_where_it_goes_and_how_long_it_is_kept(project, lead):
    before = timezone.now().replace(microsecond=0)
    answer = _post(lead, project, "Upload-Length", "8")
    upload = Upload.objects.get()
    assert answer.status_code == 201
    assert answer["Location"] == f"/api/transfers/{upload.id}"
    assert before <= parsedate_to_datetime(answer["Upload-Expires"]) - KEPT_FOR <= timezone.now()
    asked = lead.head(answer["Location"], headers=TUS)
    assert (asked["Upload-Offset"], asked["Upload-Length"]) == ("0", "8")
    assert asked["Cache-Control"] == "no-store"


def test_an_upload_that_is_too_large_is_refused_before_its_bytes(project, lead, settings):
    limit = 1024**2
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_upload_bytes": limit})
    assert _refusal(_post(lead, project, "Upload-Length", str(limit + 1))) == (413, "too_large")
    assert not Upload.objects.exists()
    assert _post(lead, project, "Upload-Length", str(limit)).status_code == 201


@pytest.mark.parametrize("length", ["", "-1", "x", "1.5", "٣", "9" * 20])
def test_an_upload_without_a_length_is_refused(project, lead, length):
    assert _refusal(_post(lead, project, "Upload-Length", length)) == (400, "malformed")


def test_an_upload_of_nothing_is_refused(project, lead):
    assert _refusal(_post(lead, project, "Upload-Length", "0")) == (422, "no_files")


def test_names_that_are_sent_are_neither_kept_nor_told(project, lead):
    answer = lead.post(
        f"/api/projects/{project.id}/transfers",
        headers={**TUS, "Upload-Length": "4", "Upload-Metadata": "filename QW5uYQ=="},
    )
    assert "Upload-Metadata" not in lead.head(answer["Location"], headers=TUS)


def test_a_repeat_after_a_lost_answer_changes_nothing(project, lead):
    address = _begin(lead, project, 6)
    _append(lead, address, b"abc", offset=0)
    assert _refusal(_append(lead, address, b"abc", offset=0)) == (409, "offset_mismatch")
    _append(lead, address, b"def", offset=3)
    owed = Upload.objects.get()

    answer = _append(lead, address, b"def", offset=3)

    assert _refusal(answer) == (409, "offset_mismatch")
    assert answer.json()["error"]["data"] == {"offset": 6}
    assert lead.head(address, headers=TUS)["Upload-Offset"] == "6"
    again = Upload.objects.get()
    assert (again.state, again.part_sizes, again.size_bytes) == (owed.state, [3, 3], 6)
    assert Event.objects.filter(action="upload_received").count() == 1
    assert _refusal(_append(lead, address, b"more", offset=6)) == (409, "upload_ended")


def test_a_part_at_another_place_is_refused(project, lead):
    address = _begin(lead, project, 6)
    for offset in (1, 6, 7):
        assert _refusal(_append(lead, address, b"abc", offset=offset)) == (409, "offset_mismatch")


def test_an_empty_part_changes_nothing(project, lead):
    address = _begin(lead, project, 6)
    answer = _append(lead, address, b"", offset=0)
    assert (answer.status_code, answer["Upload-Offset"]) == (204, "0")
    assert Upload.objects.get().part_sizes == []
    assert _append(lead, address, b"abc", offset=0).status_code == 204


def test_more_than_was_said_is_refused_and_not_kept(project, lead):
    address = _begin(lead, project, 6)
    assert _refusal(_append(lead, address, b"abcdefg", offset=0)) == (413, "too_large")
    upload = Upload.objects.get()
    assert (upload.size_bytes, upload.state) == (0, "arriving")
    assert not storage.exists(part_key(upload.blob_key(0), offset=0))
    assert _append(lead, address, b"abcdef", offset=0).status_code == 204


def test_parts_are_counted(project, lead, monkeypatch):
    monkeypatch.setattr(transfers, "MAX_PARTS", 2)
    address = _begin(lead, project, 6)
    for offset in (0, 1):
        _append(lead, address, b"x", offset=offset)
    assert _refusal(_append(lead, address, b"x", offset=2)) == (422, "too_many_parts")


def test_a_part_that_is_none_is_refused(project, lead):
    address = _begin(lead, project, 6)
    answer = lead.patch(address, b"abc", content_type="text/plain", headers={**TUS})
    assert _refusal(answer) == (415, "wrong_type")
    answer = lead.patch(address, b"abc", content_type=PART, headers=TUS)
    assert _refusal(answer) == (400, "malformed")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_part_that_has_changed_on_its_way_is_refused(project, lead, algorithm):
    address = _begin(lead, project, 6)
    digest = base64.b64encode(hashlib.new(algorithm, b"abc").digest()).decode()
    check = {"Upload-Checksum": f"{algorithm} {digest}"}
    assert _refusal(_append(lead, address, b"abd", offset=0, **check)) == (460, "wrong_checksum")
    assert lead.head(address, headers=TUS)["Upload-Offset"] == "0"
    assert _append(lead, address, b"abc", offset=0, **check).status_code == 204


@pytest.mark.parametrize("checksum", ["md5 AAAA", "sha1", "sha1 ?", "sha1 AAA"])
def test_an_unknown_checksum_is_refused(project, lead, checksum):
    address = _begin(lead, project, 6)
    answer = _append(lead, address, b"abc", offset=0, **{"Upload-Checksum": checksum})
    assert answer.status_code in (400, 460)
    assert lead.head(address, headers=TUS)["Upload-Offset"] == "0"


@pytest.mark.parametrize("version", [{}, {"Tus-Resumable": "0.2.2"}])
def test_other_versions_are_refused(project, lead, version):
    address = _begin(lead, project, 6)
    for method in (lead.head, lead.delete, lead.patch):
        answer = method(address, headers=version)
        assert (answer.status_code, answer["Tus-Version"]) == (412, "1.0.0")
    answer = lead.post(
        f"/api/projects/{project.id}/transfers", headers={**version, "Upload-Length": "1"}
    )
    assert answer.status_code == 412


@pytest.mark.django_db(transaction=True)  # another connection holds what this one asks for
def test_while_one_part_is_stored_another_is_refused(project, lead):
    address = _begin(lead, project, 6)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Upload.objects.select_for_update().get()
            held.set()
            done.wait(20)
        connection.close()

    first = threading.Thread(target=hold)
    first.start()
    assert held.wait(20)
    try:
        assert _refusal(_append(lead, address, b"abc", offset=0)) == (423, "upload_busy")
        assert lead.head(address, headers=TUS)["Upload-Offset"] == "0"
    finally:
        done.set()
        first.join()
    assert _append(lead, address, b"abc", offset=0).status_code == 204


def test_a_part_that_nobody_took_note_of_is_written_over(project, lead):
    """Its writer was killed between the object and the row."""
    data = zipped([image()])
    address = _begin(lead, project, len(data))
    storage.put(part_key(Upload.objects.get().blob_key(0), offset=0), b"half of something longer")
    _append(lead, address, data[:50], offset=0)
    _append(lead, address, data[50:], offset=50)
    ingest.ingest(Upload.objects.get().id)
    assert fates(Upload.objects.get()) == [("stored", "")]


def test_a_cancelled_upload_leaves_nothing(project, lead):
    address = _begin(lead, project, 6)
    _append(lead, address, b"abc", offset=0)
    upload = Upload.objects.get()

    assert lead.delete(address, headers=TUS).status_code == 204

    assert not storage.exists(upload.blob_prefix.rstrip("/"))
    assert not Upload.objects.exists()
    event = Event.objects.get(action="upload_discarded")
    assert event.data == {"bytes": 3, "reason": "cancelled"}
    assert event.actor == lead_of(project).username
    for method in (lead.head, lead.delete, lead.patch):
        assert method(address, headers=TUS).status_code == 404


def test_what_a_cancel_that_was_cut_off_has_left_is_swept(project, lead):
    address = _begin(lead, project, 6)
    _append(lead, address, b"abc", offset=0)
    upload = Upload.objects.get()
    Upload.objects.update(state=JobState.FAILED, error_code="cancelled")
    assert _refusal(_append(lead, address, b"def", offset=3)) == (410, "expired")

    tasks.sweep_jobs_task()

    assert not Upload.objects.exists()
    assert not storage.exists(upload.blob_prefix.rstrip("/"))


def test_a_complete_upload_is_not_cancelled(project, lead):
    address = _begin(lead, project, 3)
    _append(lead, address, b"abc", offset=0)
    assert _refusal(lead.delete(address, headers=TUS)) == (409, "upload_ended")
    assert storage.exists(part_key(Upload.objects.get().blob_key(0), offset=0))


def test_an_upload_that_nobody_continues_expires(project, lead):
    address = _begin(lead, project, 6)
    _append(lead, address, b"abc", offset=0)
    tasks.sweep_jobs_task()
    assert lead.head(address, headers=TUS).status_code == 200
    Upload.objects.update(heartbeat_at=timezone.now() - KEPT_FOR - timedelta(seconds=1))
    assert lead.head(address, headers=TUS).status_code == 410
    assert _refusal(_append(lead, address, b"def", offset=3)) == (410, "expired")

    tasks.sweep_jobs_task()

    upload = Upload.objects.get()
    assert not storage.exists(upload.blob_prefix.rstrip("/"))
    (listed,) = lead.get(f"/api/projects/{project.id}/uploads").json()
    assert (listed["state"], listed["error_code"]) == ("failed", "expired")
    assert "within a day" in listed["error_message"]
    assert lead.head(address, headers=TUS).status_code == 410
    event = Event.objects.get(action="upload_discarded")
    assert (event.actor, event.data) == ("system", {"bytes": 3, "reason": "expired"})


def test_a_part_keeps_an_upload_for_another_day(project, lead):
    address = _begin(lead, project, 6)
    Upload.objects.update(heartbeat_at=timezone.now() - KEPT_FOR + timedelta(minutes=1))
    _append(lead, address, b"abc", offset=0)
    assert Upload.objects.get().heartbeat_at > timezone.now() - timedelta(minutes=1)


def test_an_unfinished_upload_is_listed_with_who_began_it(project, lead):
    address = _begin(lead, project, 6)
    _append(lead, address, b"abc", offset=0)
    (listed,) = lead.get(f"/api/projects/{project.id}/uploads").json()
    assert (listed["state"], listed["size_bytes"], listed["expected_bytes"]) == ("arriving", 3, 6)
    assert listed["by"] == lead_of(project).username
    assert listed["expires_at"] > listed["created_at"]


def test_a_transfer_is_for_whoever_began_it(project, lead):
    address = _begin(lead, project, 6)
    other = browser_of(new_member(project, Role.LEAD))
    for method in (other.head, other.delete, other.patch):
        assert method(address, headers=TUS).status_code == 404
    assert lead.head(f"/api/transfers/{uuid4()}", headers=TUS).status_code == 404


def test_what_did_not_come_in_parts_is_no_transfer(project, lead):
    upload = send(lead, project, b"whole")
    assert lead.head(f"/api/transfers/{upload.id}", headers=TUS).status_code == 404


def test_who_may_not_upload_any_more_does_not_go_on(project, lead):
    address = _begin(lead, project, 6)
    project.memberships.update(role=Role.ANNOTATOR)
    assert _refusal(_append(lead, address, b"abc", offset=0)) == (403, "not_allowed")


def test_other_sites_cannot_send_parts(project):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(lead_of(project))
    answer = browser.post(
        f"/api/projects/{project.id}/transfers", headers={**TUS, "Upload-Length": "3"}
    )
    assert _refusal(answer) == (403, "csrf_failed")
    upload = transfers.begin(project, by=lead_of(project), expected_bytes=3)
    answer = _append(browser, f"/api/transfers/{upload.id}", b"abc", offset=0)
    assert _refusal(answer) == (403, "csrf_failed")


def test_files_of_an_upload_that_was_never_complete_are_not_read(project, lead):
    data = zipped([image()])
    address = _begin(lead, project, len(data))
    _append(lead, address, data[:-1], offset=0)
    ingest.ingest(Upload.objects.get().id)
    tasks.sweep_jobs_task()
    assert Upload.objects.get().state == JobState.ARRIVING
    assert not Study.objects.exists()


def _post(client: Client, project: Project, header: str, value: str) -> Any:
    return client.post(f"/api/projects/{project.id}/transfers", headers={**TUS, header: value})


def _begin(client: Client, project: Project, size: int) -> str:
    answer = _post(client, project, "Upload-Length", str(size))
    assert answer.status_code == 201, answer.content
    return str(answer["Location"])


def _append(client: Client, address: str, data: bytes, *, offset: int, **more: str) -> Any:
    headers = {**TUS, "Content-Type": PART, "Upload-Offset": str(offset), **more}
    return client.patch(address, data, content_type=PART, headers=headers)


def _refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
