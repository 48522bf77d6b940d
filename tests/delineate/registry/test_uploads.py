"""An administrator's checkpoint, from the file to the model that answers."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.files import File
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from delineate import storage
from delineate.audit.models import Event
from delineate.config.celery import app
from delineate.errors import Invalid
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER
from delineate.registry import commands, jobs, services
from delineate.registry.jobs import add_uploaded
from delineate.registry.models import ModelUpload, ModelVersion
from delineate.registry.services import receive_checkpoint
from delineate.registry.tasks import sweep_models_task
from mlworker.contract.artifacts import checkpoint_key
from tests import null_worker
from tests.delineate import factories

# Real transactions: the worker's start closes this process' connections to the database.
pytestmark = pytest.mark.django_db(transaction=True)

WEIGHTS = b"weights of a model"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
MODELS = "/api/models"
UPLOADS = "/api/models/uploads"
DEFAULT = "/api/models/default"


@pytest.fixture
def worker(services, broker) -> Iterator[None]:
    """Who takes every file but an empty one for a checkpoint."""
    with null_worker.running(services.redis_url, services.storage_url):
        yield


@pytest.fixture(autouse=True)
def _empty_store() -> None:
    for prefix in ("uploads/", "models/"):
        storage.delete_prefix(prefix)


@pytest.fixture
def browser(db) -> Client:
    """An administrator's."""
    administrator = factories.new_user("admin")
    administrator.is_superuser = True
    administrator.save()
    return factories.browser_of(administrator)


def post(browser: Client, data: bytes = WEIGHTS, **fields: str) -> dict[str, Any]:
    """Upload a file as the page does."""
    file = SimpleUploadedFile("sam-med2d_b.pth", data)
    answer = browser.post(MODELS, {"file": file, **fields})
    assert answer.status_code == 201, answer.content
    told: dict[str, Any] = answer.json()
    return told


def acts() -> list[tuple[str, str]]:
    """Who did what, in order."""
    return list(Event.objects.filter(project_id=None).values_list("actor", "action"))


def is_left(upload: ModelUpload) -> bool:
    """Whether the file still lies in the store."""
    return storage.exists(upload.file_key)


def test_a_file_becomes_a_model(browser, worker):
    asked = post(browser)
    assert (asked["state"], asked["name"], asked["size_bytes"]) == (
        "pending",
        "sam-med2d_b",
        len(WEIGHTS),
    )
    add_uploaded(ModelUpload.objects.get().id)
    (done,) = browser.get(UPLOADS).json()
    assert (done["id"], done["state"]) == (asked["id"], "done")
    assert (done["model_id"], done["was_known"]) == (DIGEST, False)
    (model,) = browser.get(MODELS).json()
    created_at = model.pop("created_at")
    assert created_at.startswith("20")
    assert model == {
        "digest": DIGEST,
        "name": "sam-med2d_b",
        "variant": "vit_b",
        "image_size": 256,
        "adapters": True,
        "preparation": 1,
        "trained": True,
        "origin": "an upload",
        "parent": "",
        "metrics": {},
        "is_default": True,  # there was none
    }
    assert acts() == [
        ("admin", "model_uploaded"),
        ("admin", "model_added"),
        ("admin", "model_made_default"),
    ]
    assert storage.get(checkpoint_key(DIGEST)) == WEIGHTS
    assert not is_left(ModelUpload.objects.get())


def test_who_uploads_may_choose_what_becomes_of_the_adapters(browser, worker):
    post(browser, adapters="drop")
    add_uploaded(ModelUpload.objects.get().id)

    assert ModelVersion.objects.get().adapters is False
    refused = browser.post(MODELS, {"file": SimpleUploadedFile("a.pth", WEIGHTS), "adapters": "?"})
    assert refused.status_code == 422
    assert ModelUpload.objects.count() == 1


def test_the_same_file_again_is_the_same_model(browser, worker):
    for name in ("first", "second"):
        add_uploaded(ModelUpload.objects.get(id=post(browser, name=name)["id"]).id)
    again, first = browser.get(UPLOADS).json()
    assert (first["was_known"], again["was_known"]) == (False, True)
    assert first["model_id"] == again["model_id"] == DIGEST
    assert ModelVersion.objects.get().name == "first"
    assert Event.objects.filter(action="model_added").count() == 1


def test_a_job_that_has_ended_does_nothing_again(browser, worker):
    upload_id = ModelUpload.objects.get(id=post(browser)["id"]).id
    add_uploaded(upload_id)
    before = acts()
    add_uploaded(upload_id)
    assert acts() == before


def test_what_the_worker_refuses_is_told_and_leaves_nothing(browser, worker):
    asked = post(browser)
    upload = ModelUpload.objects.get(id=asked["id"])
    storage.put(upload.file_key, b"")  # what this worker takes for no checkpoint
    add_uploaded(upload.id)
    (told,) = browser.get(UPLOADS).json()
    assert (told["state"], told["error_code"]) == ("failed", "checkpoint_refused")
    assert told["error_message"] == "The file is empty."
    assert browser.get(MODELS).json() == []
    assert acts() == [("admin", "model_uploaded"), ("admin", "model_refused")]
    assert not is_left(upload)


def test_a_file_that_is_gone_is_to_be_uploaded_again(browser, worker):
    upload = ModelUpload.objects.get(id=post(browser)["id"])
    storage.delete(upload.file_key)
    add_uploaded(upload.id)
    upload.refresh_from_db()
    assert (upload.state, upload.error_code) == ("failed", "checkpoint_missing")


def test_a_worker_that_does_not_answer_is_a_refusal_that_leaves_nothing(
    browser, broker, monkeypatch
):
    monkeypatch.setattr(jobs, "READING_TAKES_AT_MOST_S", 0.3)
    upload = ModelUpload.objects.get(id=post(browser)["id"])
    add_uploaded(upload.id)
    upload.refresh_from_db()
    assert (upload.state, upload.error_code) == ("failed", "worker_timeout")
    assert "Try again later" in upload.error_message
    assert not is_left(upload)


def test_a_job_that_dies_too_often_is_given_up_and_leaves_nothing(browser, broker):
    upload = ModelUpload.objects.get(id=post(browser)["id"])
    ModelUpload.objects.update(attempt=MAX_ATTEMPTS)
    add_uploaded(upload.id)
    upload.refresh_from_db()
    assert (upload.state, upload.error_code) == ("failed", "gave_up")
    assert not is_left(upload)


def test_a_silent_job_is_sent_again(browser, broker):
    post(browser)
    ModelUpload.objects.update(heartbeat_at=timezone.now() - 2 * SILENT_AFTER, state="running")
    sweep_models_task()
    upload = ModelUpload.objects.get()
    assert upload.state == "pending"
    assert timezone.now() - upload.heartbeat_at < timedelta(seconds=20)
    assert any(broker.llen(key) for key in broker.keys("server*"))


@pytest.mark.parametrize(
    ("data", "fields", "status", "code"),
    [(b"", {}, 422, "no_file"), (b"x", {"name": "n" * 121}, 422, "invalid")],
)
def test_a_request_that_is_not_right_is_refused_at_the_door(browser, data, fields, status, code):
    file = SimpleUploadedFile("a.pth", data)
    answer = browser.post(MODELS, {"file": file, **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert not ModelUpload.objects.exists()


class Stream(File):  # type: ignore[type-arg]  # takes no argument at run time
    """A file that exists only while it is read, of any size."""

    def __init__(self, size: int, *, breaks_after: int | None = None) -> None:
        super().__init__(None, name="huge.pth")
        self.size = size
        self._breaks_after = breaks_after

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Zeros; OSError after so many bytes."""
        assert chunk_size is not None
        for read in range(0, self.size, chunk_size):
            if self._breaks_after is not None and read >= self._breaks_after:
                raise OSError("the connection broke")
            yield bytes(min(chunk_size, self.size - read))


def test_more_than_any_checkpoint_has_is_refused_unread():
    with pytest.raises(services.CheckpointTooLarge) as refusal:
        receive_checkpoint(Stream(services.MAX_CHECKPOINT_BYTES + 1, breaks_after=0))
    assert (refusal.value.status, refusal.value.code) == (413, "too_large")


def test_a_file_that_breaks_off_leaves_nothing():
    with pytest.raises(OSError, match="broke"):
        receive_checkpoint(Stream(3 * 1024**2, breaks_after=2 * 1024**2))
    assert not ModelUpload.objects.exists()
    assert acts() == []


def test_another_model_is_made_the_default(browser, worker):
    for data in (WEIGHTS, b"better weights"):
        add_uploaded(ModelUpload.objects.get(id=post(browser, data)["id"]).id)
    better, first = browser.get(MODELS).json()
    assert (better["is_default"], first["is_default"]) == (False, True)
    chosen = browser.put(DEFAULT, {"digest": better["digest"]}, content_type="application/json")
    assert (chosen.status_code, chosen.json()) == (200, better | {"is_default": True})
    event = Event.objects.order_by("number").last()
    assert event is not None
    assert (event.actor, event.action) == ("admin", "model_made_default")
    assert event.data == {"previous": first["digest"]}
    unknown = browser.put(DEFAULT, {"digest": "0" * 64}, content_type="application/json")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_model")


@pytest.fixture
def _eager(broker) -> Iterator[None]:
    """A server that takes a task as soon as it is sent."""
    app.set_current()  # which the worker's start has made its own
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def add(*words: str) -> int:
    """Run `delineate model add …`."""
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args(["add", *words]))


@pytest.mark.usefixtures("worker", "_eager")
def test_the_command_adds_a_file_and_says_what_it_became(tmp_path, capsys):
    file = tmp_path / "fine.safetensors"
    file.write_bytes(WEIGHTS)
    assert add(str(file), "--name", "Fine") == 0
    assert capsys.readouterr().out == f"{DIGEST}\tFine\tvit_b\ttrained\tdefault\n"
    assert [actor for actor, _ in acts()] == ["system"] * 3


@pytest.mark.usefixtures("_eager")
def test_the_command_says_what_was_refused(tmp_path, broker, monkeypatch):
    with pytest.raises(Invalid) as missing:
        add(str(tmp_path / "none.pth"))
    assert missing.value.code == "no_such_path"
    monkeypatch.setattr(jobs, "READING_TAKES_AT_MOST_S", 0.3)
    file = tmp_path / "some.pth"
    file.write_bytes(WEIGHTS)
    with pytest.raises(Invalid) as refusal:
        add(str(file))
    assert refusal.value.code == "worker_timeout"
