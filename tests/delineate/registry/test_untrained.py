"""A newcomer's model, made by a real worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from delineate import storage
from delineate.registry.services import add_untrained
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
