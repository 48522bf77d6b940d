"""The worker as a process: what the supervisor starts and watches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlworker import tasks
from mlworker.app import TASK_DEADLINE_S, Heartbeat, app, queue_of
from mlworker.contract.artifacts import checkpoint_key
from mlworker.contract.messages import Failed, Point, Segmented, SegmentSlice, reply_adapter
from mlworker.model.checkpoint import digest_of_file
from tests.mlworker import commands
from tests.waiting import until

ROOT = Path(__file__).parents[2]
POINT = Point(x=40, y=30, positive=True)
HEARTBEAT = "heartbeat:interactive"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def worker(module_broker, tmp_path_factory):
    """The process that answers clicks, started as the supervisor starts it."""
    command = [sys.executable, "-m", "celery", "-A", "mlworker.app", "worker", "-Q", "interactive"]
    options = ["--pool=solo", "--without-gossip", "--without-mingle", "-n", "test@%h"]
    known = {name: os.environ[name] for name in ("PATH", "REDIS_URL", "STORAGE_URL")}
    log = tmp_path_factory.mktemp("worker") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], stdout=output, stderr=output, env=known, cwd=ROOT
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def model(services, small_checkpoint):
    name = digest_of_file(small_checkpoint)
    tasks.store.put(checkpoint_key(name), small_checkpoint.read_bytes())
    return name


@pytest.fixture(scope="module")
def prepared(model):
    image = commands.stored_image(tasks.store, commands.ct_slice(shift=100))
    tasks.encode_slices(commands.encode(image, model_digest=model))
    return image


def _command(image, model):
    fields = commands.awaited(timeout_s=PATIENCE_S)
    command = commands.segment(image, model_digest=model, points=(POINT,))
    return command.model_copy(update=fields)


def _answer(module_broker, command, *, payload=None):
    """Send it as the server does; what comes back."""
    app.send_task(
        SegmentSlice.task, args=[payload or command.model_dump_json()], queue=SegmentSlice.queue
    )
    answer = module_broker.blpop([command.reply_to], timeout=PATIENCE_S)
    assert answer is not None
    return reply_adapter.validate_json(answer[1])


async def test_a_worker_says_that_it_lives_and_answers(module_broker, worker, prepared, model):
    await until(lambda: module_broker.exists(HEARTBEAT))
    assert float(module_broker.get(HEARTBEAT)) <= time.time()

    reply = _answer(module_broker, _command(prepared, model))

    assert isinstance(reply, Segmented)
    first = module_broker.get(HEARTBEAT)
    await until(lambda: module_broker.get(HEARTBEAT) != first)


async def test_a_message_of_another_version_does_not_end_the_worker(
    module_broker, worker, prepared, model
):
    command = _command(prepared, model)
    payload = command.model_dump_json().replace('"contract_version":1', '"contract_version":9')

    reply = _answer(module_broker, command, payload=payload)

    assert isinstance(reply, Failed)
    assert reply.code == "message_invalid"
    assert isinstance(_answer(module_broker, _command(prepared, model)), Segmented)


async def test_a_worker_outlives_its_connections(module_broker, worker, prepared, model):
    await until(lambda: module_broker.exists(HEARTBEAT))
    module_broker.client_kill_filter(_type="normal", skipme=True)
    module_broker.delete(HEARTBEAT)

    # The broker's queue survives: what is sent meanwhile is answered after the reconnection.
    assert isinstance(_answer(module_broker, _command(prepared, model)), Segmented)
    await until(lambda: module_broker.exists(HEARTBEAT))


def test_a_worker_without_an_address_says_what_it_misses():
    environment = {"PATH": os.environ["PATH"], "STORAGE_URL": "file:///nonexistent"}

    ended = subprocess.run(
        [sys.executable, "-c", "import mlworker.app"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ended.returncode != 0
    assert "REDIS_URL" in ended.stderr


def test_the_application_can_be_imported_without_torch():
    """Celery's own commands, and the settings, must not wait for it."""
    code = "import sys, mlworker.app; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("queue", TASK_DEADLINE_S)
def test_a_task_beyond_its_deadline_silences_the_heartbeat(queue):
    now = 1000.0
    heartbeat = Heartbeat(queue, clock=lambda: now)
    assert heartbeat.is_alive()

    with heartbeat.during_task():
        now += TASK_DEADLINE_S[queue] - 1
        assert heartbeat.is_alive()
        now += 2
        assert not heartbeat.is_alive()

    assert heartbeat.is_alive()


def test_a_task_that_fails_does_not_silence_the_heartbeat():
    now = 1000.0
    heartbeat = Heartbeat("encode", clock=lambda: now)

    with pytest.raises(KeyError), heartbeat.during_task():
        raise KeyError
    now += 1e6

    assert heartbeat.is_alive()


@pytest.mark.parametrize(
    ("argv", "queue"),
    [
        (["celery", "-A", "mlworker.app", "worker", "-Q", "encode", "--pool=solo"], "encode"),
        (["celery", "-A", "mlworker.app", "worker", "-Q", "train"], "train"),
        (["celery", "-A", "mlworker.app", "inspect"], "interactive"),
    ],
)
def test_a_process_knows_its_queue(argv, queue):
    assert queue_of(argv) == queue
