"""Models made and read by a real worker."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from importlib import resources

import pytest
from django.core.files.base import ContentFile

from delineate import storage
from delineate.registry.jobs import add_uploaded
from delineate.registry.models import ModelUpload
from delineate.registry.services import add_shipped, add_untrained, receive_checkpoint
from mlworker.contract.artifacts import checkpoint_key


@pytest.fixture(scope="module")
def worker(services, tmp_path_factory):
    """The process that serves the queue of long work."""
    command = [sys.executable, "-m", "celery", "-A", "mlworker.app", "worker", "-Q", "train"]
    quiet = ["--pool=solo", "--without-mingle", "--without-gossip", "-n", "registry-test@%h"]
    log = (tmp_path_factory.mktemp("worker") / "log").open("wb")
    # Without Django's settings, which Celery would take for an invitation to load the server.
    known = {name: os.environ[name] for name in ("PATH", "REDIS_URL", "STORAGE_URL")}
    process = subprocess.Popen([*command, *quiet], stdout=log, stderr=log, env=known)
    yield process
    process.terminate()
    process.wait(timeout=30)
    log.close()


@pytest.mark.django_db(transaction=True)
def test_equal_seeds_make_one_model(worker):
    model = add_untrained(variant="vit_t", seed=5)
    assert (model.variant, model.trained, model.is_default) == ("vit_t", False, True)
    assert storage.exists(checkpoint_key(model.digest))
    assert add_untrained(variant="vit_t", seed=5) == model
    assert add_untrained(variant="vit_t", seed=6).digest != model.digest


@pytest.mark.django_db(transaction=True)
def test_the_model_that_is_shipped_is_added_as_it_is_or_none(worker):
    shipped = resources.files("mlworker.recipes") / "default.safetensors"
    model = add_shipped()
    if shipped.is_file():
        assert model is not None
        assert model.digest == hashlib.sha256(shipped.read_bytes()).hexdigest()
        assert model.trained
    else:
        assert model is None


def uploaded(data: bytes) -> ModelUpload:
    """What became of a file."""
    upload = receive_checkpoint(ContentFile(data, name="some.pth"))
    add_uploaded(upload.id)
    upload.refresh_from_db()
    assert not storage.exists(upload.file_key)
    return upload


@pytest.mark.django_db(transaction=True)
def test_a_checkpoint_of_ours_stays_what_it_is(worker):
    model = add_untrained(variant="vit_t", seed=7)
    upload = uploaded(storage.get(checkpoint_key(model.digest)))
    assert (upload.state, upload.model, upload.was_known) == ("done", model, True)


class Canary:
    """Asks for more than weights when it is read."""

    def __reduce__(self):
        return (os.mkdir, (os.environ["DELINEATE_CANARY"],))


@pytest.mark.django_db(transaction=True)
def test_a_file_that_carries_code_is_refused_and_not_run(worker, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    monkeypatch.setenv("DELINEATE_CANARY", str(canary))
    upload = uploaded(pickle.dumps({"model": Canary()}, protocol=2))
    assert (upload.state, upload.error_code) == ("failed", "checkpoint_refused")
    assert "carries code" in upload.error_message
    assert upload.model is None
    assert not canary.exists()
