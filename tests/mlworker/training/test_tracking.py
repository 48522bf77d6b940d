"""MLflow, where there is one: its own store in a folder, and a server that is away."""

from __future__ import annotations

import socket

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlworker.training import tracking
from mlworker.training.progress import Listener, Progress

STEP = {"epoch": 1, "of_steps": 2, "dice": 0.5, "learning_rate": 1e-4, "took_s": 0.1}


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A tracking store of the test's own."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file://{tmp_path}/mlflow"


def heard_at(address: str, run_id: str, **parameters: object) -> Listener:
    """A listener that has been accepted."""
    heard = tracking.listener(address, run_id=run_id, parameters=parameters)
    assert heard is not None
    return heard


def only_run(client: MlflowClient) -> Run:
    """Of the experiment."""
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_a_run_is_one_of_mlflows_though_it_is_interrupted(tmp_path, address):
    def begun():
        return Progress(tmp_path, listeners=[heard_at(address, "r-1", trainable="decoder")])

    progress = begun()
    progress.say("started", images=3, masks=9, data="d" * 64)
    progress.step(step=1, loss=0.75, **STEP)
    progress.end("stopped", step=1)
    progress = begun()
    progress.step(step=2, loss=0.25, **STEP)
    progress.epoch(epoch=1, step=2, loss=0.5)
    progress.end("finished", step=2)

    client = MlflowClient(address)
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"trainable": "decoder"}
    assert run.data.tags[tracking.RUN_TAG] == "r-1"
    assert run.data.tags["delineate.masks"] == "9"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in losses] == [(1, 0.75), (2, 0.25)]
    assert run.data.metrics["epoch/loss"] == 0.5


def test_a_run_that_fails_says_why(tmp_path, address):
    Progress(tmp_path, listeners=[heard_at(address, "r-2")]).end(
        "failed", code="NotFinite", message="Too steep."
    )

    client = MlflowClient(address)
    run = only_run(client)
    assert (run.info.status, run.data.tags["delineate.message"]) == ("FAILED", "Too steep.")


def test_a_server_that_is_away_is_not_waited_for(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unserved:  # bound, and nobody listens
        unserved.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unserved.getsockname()[1]}"
        assert tracking.listener(address, run_id="r-3", parameters={}) is None
    assert "MLflow is not told of run r-3" in caplog.text


def test_what_mlflow_refuses_is_no_matter_to_the_run(tmp_path, address, caplog):
    heard = heard_at(address, "r-4")
    (tmp_path / "mlflow").rename(tmp_path / "gone")
    (tmp_path / "mlflow").write_text("no folder")

    Progress(tmp_path, listeners=[heard]).end("finished", step=1)

    assert "MLflow missed finished" in caplog.text
    assert "finished" in (tmp_path / "events.jsonl").read_text()
