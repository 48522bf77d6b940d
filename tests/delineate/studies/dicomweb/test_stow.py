"""Storing: what is kept, what is refused at once, and what the sender is told."""

from __future__ import annotations

import uuid
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import BasicTextSRStorage, DeflatedExplicitVRLittleEndian

from delineate import storage
from delineate.audit.models import Event
from delineate.projects.models import Role
from delineate.studies import ingest
from delineate.studies.dicomweb import stow
from delineate.studies.models import Instance, Upload
from tests.delineate.factories import browser_of, lead_of, new_member, new_project, new_user
from tests.delineate.studies.files import fates, image, written
from tests.delineate.studies.reference_files import dose

pytestmark = pytest.mark.django_db

BOUNDARY = "of-this-request"


@pytest.fixture
def project():
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def body(*files: bytes, part: str = "Content-Type: application/dicom") -> bytes:
    """The parts of a request."""
    lines = f"\r\n--{BOUNDARY}\r\n{part}\r\n\r\n".encode()
    return b"".join(lines + file for file in files) + f"\r\n--{BOUNDARY}--".encode()


def send(client: Client, project, content: bytes, *, study: str = "", **more):
    """A request as senders make it; ``more`` goes beside its body."""
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    address = f"/dicomweb/{project.id}/studies" + (f"/{study}" if study else "")
    return client.post(address, content, **{"content_type": kind, **more})


def reasons(response) -> list[int]:
    """Why instances were not stored."""
    failed = response.json().get("00081198", {}).get("Value", [])
    others = response.json().get("0008119A", {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in [*failed, *others]]


def test_one_request_is_one_upload_of_one_object(project, lead):
    files = [written(image(z=float(z), seed=z)) for z in range(3)]
    response = send(lead, project, body(*files))
    assert (response.status_code, response["Content-Type"]) == (200, "application/dicom+json")
    upload = Upload.objects.get()
    assert (upload.way_in, upload.blob_count, upload.state) == ("stow", 1, "pending")
    with zipfile.ZipFile(storage.open_for_reading(upload.blob_key(0))) as kept:
        assert [kept.read(name) for name in kept.namelist()] == files
    received = Event.objects.filter(action="upload_received").get()
    assert received.data["way_in"] == "stow"


def test_the_answer_leads_to_the_uploads_report(project, lead):
    response = send(lead, project, body(written(image(Rows=0))))
    assert response.status_code == 200  # it is DICOM, and kept: what is wrong shows later
    ingest.ingest(Upload.objects.get().id)
    address, _, relation = response["Link"].partition(">; ")
    assert relation == 'rel="describedby"'
    report = lead.get(address.removeprefix("<http://testserver")).json()["report"]
    assert [line["code"] for line in report] == ["unsupported_size"]


def test_senders_are_told_of_their_own_uids_and_of_addresses_of_ours(project, lead):
    file = image(study="1.2.3", sop="1.2.3.4.5")
    answer = send(lead, project, body(written(file))).json()
    (reference,) = answer["00081199"]["Value"]
    assert reference["00081150"]["Value"] == [file.SOPClassUID]
    assert reference["00081155"]["Value"] == ["1.2.3.4.5"]
    (address,) = reference["00081190"]["Value"]
    assert "1.2.3" not in address.replace("2.25.", "")
    ingest.ingest(Upload.objects.get().id)
    assert address.endswith(Instance.objects.get().sop_instance_uid)
    assert lead.get(address.removeprefix("http://testserver")).status_code == 200


def test_what_cannot_go_in_is_told_of_instance_by_instance(project, lead):
    good = written(image())
    content = body(
        good,
        b"no DICOM at all",
        b"",
        written(image(SOPClassUID=BasicTextSRStorage)),
        written(image(study="1.2.4")),
        written(image(SeriesInstanceUID=None)),
    )
    response = send(lead, project, content, study="1.2.3")
    assert response.status_code == 202
    assert sorted(reasons(response)) == [0x0122, 0xA901, 0xC000, 0xC000, 0xC000]
    assert len(response.json()["00081199"]["Value"]) == 1
    upload = Upload.objects.get()
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert fates(upload) == [("stored", "")]  # the others were not kept


def test_references_are_taken(project, lead):
    response = send(lead, project, body(written(dose())))
    assert response.status_code == 200
    upload = Upload.objects.get()
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    assert fates(upload) == [("stored", "kept_as_reference")]
    (reference,) = response.json()["00081199"]["Value"]
    (address,) = reference["00081190"]["Value"]
    assert lead.get(address.removeprefix("http://testserver")).status_code == 200


def test_where_nothing_can_go_in_nothing_is_kept(project, lead):
    response = send(lead, project, body(b"no DICOM at all"))
    assert (response.status_code, reasons(response)) == (409, [0xC000])
    assert "Link" not in response
    assert not Upload.objects.exists()


def test_a_deflated_file_is_understood(project, lead):
    file = image()
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    response = send(lead, project, body(written(file)))
    assert response.status_code == 200
    ingest.ingest(Upload.objects.get().id)
    assert Instance.objects.count() == 1


def test_a_deflated_file_that_would_be_inflated_at_any_length_is_not(project, lead, monkeypatch):
    file = image()
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    monkeypatch.setattr(stow, "MAX_DEFLATED_BYTES", 10)
    assert reasons(send(lead, project, body(written(file)))) == [0xC000]


def test_a_large_part_waits_on_disk_and_is_whole(project, lead, monkeypatch):
    monkeypatch.setattr(stow, "HELD_BYTES", 16)
    file = written(image())
    assert send(lead, project, body(file)).status_code == 200
    with zipfile.ZipFile(storage.open_for_reading(Upload.objects.get().blob_key(0))) as kept:
        assert kept.read("1.dcm") == file


def test_bounds_are_kept(project, lead, monkeypatch, settings):
    file = written(image())
    monkeypatch.setattr(stow, "MAX_FILES", 2)
    many = send(lead, project, body(file, file, file))
    assert (many.status_code, many.json()["error"]["code"]) == (400, "too_many_files")
    monkeypatch.setattr(stow, "MAX_FILE_BYTES", len(file) - 1)
    assert reasons(send(lead, project, body(file))) == [0xA700]
    environment = settings.ENVIRONMENT.model_copy(update={"max_upload_bytes": 100})
    settings.ENVIRONMENT = environment
    large = send(lead, project, body(file))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"\r\n", 400, "malformed"),
        (b"--of-another", 400, "malformed"),
        (f"--{BOUNDARY}--".encode(), 400, "malformed"),
        (body(b"x")[:-4], 400, "malformed"),
        (body(b"x").replace(b"\r\n\r\n", b"\r\n"), 400, "malformed"),
        (body(b"x", part="X: " + "y" * 20_000), 400, "malformed"),
        (body(b"x", part="Content-Type: application/dicom+json"), 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(project, lead, content, status, code):
    response = send(lead, project, content)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/dicom", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', 415),
        ("multipart/related; boundary=x", 415),
        ("multipart/form-data; boundary=x", 415),
        ('multipart/related; type="application/dicom"', 400),
        (f'multipart/related; type="application/dicom"; boundary={"x" * 71}', 400),
        (f"Multipart/Related; type=application/dicom; boundary={BOUNDARY}", 200),
        (f'multipart/related;type="application/dicom";boundary="{BOUNDARY}"', 200),
    ],
)
def test_the_content_type_says_what_comes(project, lead, content_type, status):
    content = body(written(image()))
    assert send(lead, project, content, content_type=content_type).status_code == status


def test_only_json_is_answered(project, lead):
    content = body(written(image()))
    refused = send(lead, project, content, HTTP_ACCEPT="application/dicom+xml")
    assert (refused.status_code, refused.json()["error"]["code"]) == (406, "not_acceptable")
    assert not Upload.objects.exists()  # said before anything is kept
    assert send(lead, project, content, HTTP_ACCEPT="application/json").status_code == 200


def test_who_may_upload_may_store(project):
    content = body(written(image()))
    for client, status, code in (
        (Client(), 401, "not_signed_in"),
        (browser_of(new_user()), 404, "not_found"),
        (browser_of(new_member(project, Role.ANNOTATOR)), 403, "not_allowed"),
        (browser_of(new_member(project, Role.REVIEWER)), 403, "not_allowed"),
    ):
        for study in ("", "1.2.3"):
            response = send(client, project, content, study=study)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    elsewhere = f"/dicomweb/{uuid.uuid4()}/studies"
    assert browser_of(lead_of(project)).post(elsewhere).status_code == 404
    assert not Upload.objects.exists()


def test_a_browser_needs_its_csrf_token_and_a_token_needs_none(project, rf, lead):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(lead_of(project))
    content = body(written(image()))
    refused = send(strict, project, content)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "csrf_failed")
    token = "a" * 32
    strict.cookies["csrftoken"] = token
    assert send(strict, project, content, HTTP_X_CSRFTOKEN=token).status_code == 200

    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    for by_token, status in ((True, 200), (False, 403), ("yes", 403)):
        request = rf.post("/", content, content_type=kind)
        request.user, request.by_token = lead_of(project), by_token
        assert stow.store(request, project_id=project.id).status_code == status


def test_a_form_with_files_is_no_way_in(project, lead):
    address = f"/dicomweb/{project.id}/studies"
    assert lead.post(address, {"files": SimpleUploadedFile("a.dcm", b"x")}).status_code == 415


_good = body(written(image(sop="1.2.3.4")))


@st.composite
def damaged(draw) -> bytes:
    """A good request, cut, with bytes changed, repeated or put between."""
    content = bytearray(_good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        put = draw(
            st.sampled_from([b"", b"\r\n", b"--", f"\r\n--{BOUNDARY}".encode(), b"\xff" * 8])
            | st.binary(max_size=12)
        )
        content[start:end] = put
    return bytes(content)


@given(damaged())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_requests_are_answered_and_never_break_anything(project, lead, content):
    lead.raise_request_exception = False
    assert send(lead, project, content).status_code in (200, 202, 400, 409, 415)
