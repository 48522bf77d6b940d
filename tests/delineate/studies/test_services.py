"""Uploads at the door, what lists tell of them, and studies that are deleted."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from delineate import jobs, storage
from delineate.audit.models import Event
from delineate.errors import Conflict
from delineate.jobs import SILENT_AFTER, JobState
from delineate.projects.models import Project, Role
from delineate.studies import ingest, services
from delineate.studies.models import Encoding, Slice, Study, Upload, WayIn
from delineate.studies.tasks import sweep_jobs_task
from mlworker.contract.messages import MAX_BATCH
from tests.delineate.factories import browser_of, lead_of, new_member, new_model, new_project
from tests.delineate.studies.files import fates, image, send, send_and_ingest, written, zipped

# Real transactions: objects are removed when the rows are gone for good.
pytestmark = pytest.mark.django_db(transaction=True)

EMBEDDING = b"an embedding"


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def test_an_upload_is_kept_and_told_before_it_is_ingested(project, lead):
    upload = send(lead, project, b"one", b"three")
    told = lead.get(f"/api/uploads/{upload.id}").json()
    assert (told["state"], told["blob_count"], told["size_bytes"]) == ("pending", 2, 8)
    assert (told["report"], told["fates"]) == ([], {})
    assert [storage.get(upload.blob_key(number)) for number in (0, 1)] == [b"one", b"three"]
    event = Event.objects.get(action="upload_received")
    assert (event.actor, event.data) == (
        lead_of(project).username,
        {"way_in": "browser", "files": 2, "bytes": 8},
    )


def test_an_ingested_upload_tells_the_fate_of_every_file(project, lead):
    upload = send_and_ingest(lead, project, zipped([image(), b"no image"]))
    told = lead.get(f"/api/uploads/{upload.id}").json()
    assert (told["state"], told["files_done"], told["files_total"]) == ("done", 2, 2)
    assert told["fates"] == {"stored": 1, "refused": 1}
    assert told["report"][1] == {
        "file": 2,
        "fate": "refused",
        "code": "not_dicom",
        "message": "The file is no image of a known kind.",
    }
    (listed,) = lead.get(f"/api/projects/{project.id}/uploads").json()
    assert listed == {key: value for key, value in told.items() if key != "report"}


def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(project, lead, settings):
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_upload_bytes": 1024**2})
    answer = _post(lead, project, bytes(1024**2 + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "1 MiB" in answer.json()["error"]["message"]
    assert not Upload.objects.exists()
    assert _post(lead, project, bytes(1024**2)).status_code == 201


def test_an_upload_of_nothing_is_refused(project, lead):
    answer = _post(lead, project, b"")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_files")
    assert not Upload.objects.exists()


def test_studies_are_listed_with_what_is_prepared_of_them(project, lead):
    model = new_model()
    files = [image(z=float(z), seed=z) for z in range(MAX_BATCH)]
    send_and_ingest(lead, project, zipped(files))
    Encoding.objects.filter(slice__index=0, model_digest=model.digest).update(state=JobState.DONE)
    (study,) = lead.get(f"/api/projects/{project.id}/studies").json()
    assert (study["number"], study["subject"]) == (1, Study.objects.get().subject.pseudonym)
    (series,) = study["series"]
    assert (series["slices"], series["prepared"]) == (MAX_BATCH, 1)
    assert (series["modality"], series["rows"], series["columns"]) == ("CT", 8, 10)
    assert series["is_color"] is False


def test_a_deleted_study_leaves_nothing(project, lead):
    new_model()
    send_and_ingest(lead, project, zipped([image(z=0.0, seed=0), image(z=1.0, seed=1)]))
    study = Study.objects.get()
    keys = [*Slice.objects.values_list("pixels_key", flat=True), *_embed_all()]
    assert len(keys) == 4

    assert lead.delete(f"/api/studies/{study.id}").status_code == 204

    assert not any(storage.exists(key) for key in keys)
    assert not Slice.objects.exists()
    assert not Encoding.objects.exists()
    event = Event.objects.get(action="study_deleted")
    assert (event.actor, event.data) == (lead_of(project).username, {"series": 1, "slices": 2})
    assert lead.delete(f"/api/studies/{study.id}").status_code == 404


def test_an_embedding_that_another_study_needs_stays(project, lead):
    new_model()
    send_and_ingest(lead, project, zipped([image(seed=1)]))
    send_and_ingest(lead, project, zipped([image(seed=1, study="1.2.4", series="1.2.4.1")]))
    (shared,) = set(_embed_all())
    first, second = Study.objects.all()

    lead.delete(f"/api/studies/{first.id}")
    assert storage.get(shared) == EMBEDDING
    lead.delete(f"/api/studies/{second.id}")
    assert not storage.exists(shared)


def test_a_deleted_study_can_be_uploaded_again(project, lead):
    files = zipped([image()])
    send_and_ingest(lead, project, files)
    lead.delete(f"/api/studies/{Study.objects.get().id}")
    send_and_ingest(lead, project, files)
    assert storage.exists(Slice.objects.get().pixels_key)


@pytest.mark.parametrize("role", [Role.REVIEWER, Role.ANNOTATOR])
def test_only_leads_delete(project, lead, role):
    send_and_ingest(lead, project, zipped([image()]))
    browser = browser_of(new_member(project, role))
    assert browser.delete(f"/api/studies/{Study.objects.get().id}").status_code == 403
    assert Study.objects.exists()


def _post(client: Client, project: Project, blob: bytes):
    files = {"files": [SimpleUploadedFile("images.zip", blob)]}
    return client.post(f"/api/projects/{project.id}/uploads", files)


def _embed_all() -> list[str]:
    """Let every slice have its embedding; their keys."""
    keys = list(Encoding.objects.values_list("embedding_key", flat=True))
    for key in keys:
        storage.put(key, EMBEDDING)
    return keys


def test_an_upload_in_pieces_is_owed_only_when_it_has_ended(project):
    upload = services.begin_upload(project, by=lead_of(project), way_in=WayIn.DIMSE)
    assert services.add_blob(upload, iter([written(image(z=0.0))])) == 0
    assert jobs.claim(Upload, upload.id) is None
    assert services.add_blob(upload, iter([written(image(z=2.0))])) == 1
    services.end_upload(upload)
    services.end_upload(upload)  # a repeat changes nothing

    ingest.ingest(upload.id)

    upload.refresh_from_db()
    assert (upload.state, upload.blob_count) == (JobState.DONE, 2)
    assert fates(upload) == [("stored", ""), ("stored", "")]
    with pytest.raises(Conflict) as refusal:
        services.add_blob(upload, iter([b"late"]))
    assert refusal.value.code == "upload_ended"
    assert not storage.exists(upload.blob_key(2))


def test_an_upload_that_ends_empty_leaves_nothing(project):
    upload = services.begin_upload(project, by=lead_of(project), way_in=WayIn.STOW)
    services.end_upload(upload)
    assert not Upload.objects.filter(id=upload.id).exists()


def test_what_was_kept_of_an_upload_counts_even_where_its_row_lags_behind(project):
    upload = services.begin_upload(project, by=lead_of(project), way_in=WayIn.DIMSE)
    for z in range(3):
        services.add_blob(upload, iter([written(image(z=float(z), seed=z))]))
    Upload.objects.update(blob_count=1, heartbeat_at=timezone.now() - 2 * SILENT_AFTER)

    sweep_jobs_task()

    upload.refresh_from_db()
    assert (upload.state, upload.blob_count) == (JobState.PENDING, 3)
    assert Event.objects.get(action="upload_received").data["files"] == 3


def test_a_folders_upload_that_fell_silent_is_forgotten_by_the_sweep(project):
    upload = services.begin_upload(project, by=lead_of(project), way_in=WayIn.FOLDER)
    services.add_blob(upload, iter([b"half of it"]))
    sweep_jobs_task()
    assert Upload.objects.exists()
    Upload.objects.update(heartbeat_at=timezone.now() - 2 * SILENT_AFTER)

    sweep_jobs_task()

    assert not Upload.objects.exists()
    assert not storage.exists(upload.blob_key(0))
