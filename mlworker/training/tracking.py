"""MLflow, where an installation has it: every fine-tuning of the server's as one of its runs.

It hears what TensorBoard's files have. Numbers are sent in the background, and what cannot be sent
is logged and lost: nobody's model waits for a tracking server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mlworker.training.progress import Listener, Value

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

EXPERIMENT: Final = "delineate"
RUN_TAG: Final = "delineate.run_id"
_ENDS: Final[Mapping[str, str]] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def listener(address: str, *, run_id: str, parameters: Mapping[str, object]) -> Listener | None:
    """What tells the MLflow server at ``address`` of a run; None where it cannot be reached.

    A run that goes on is told to the same run of MLflow's.
    """
    try:
        # An extra: delineate[mlflow].
        from mlflow import MlflowClient, environment_variables  # noqa: PLC0415
    except ImportError:
        logger.warning("MLFLOW_TRACKING_URI is set, but mlflow-skinny is not installed")
        return None
    impatient: list[tuple[Any, int]] = [  # it would try for minutes
        (environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES, 1),
        (environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT, 5),
    ]
    for setting, value in impatient:
        if not setting.is_set():
            setting.set(value)
    try:
        return _Tracked(MlflowClient(address), run_id=run_id, parameters=parameters)
    except Exception as error:  # whatever a server or the way to it can do
        logger.warning("MLflow is not told of run %s: %s", run_id, error)
        return None


class _Tracked:
    def __init__(
        self, client: MlflowClient, *, run_id: str, parameters: Mapping[str, object]
    ) -> None:
        self._client = client
        self._last: Any = None
        experiment = client.get_experiment_by_name(EXPERIMENT)
        found = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        known = client.search_runs([found], f"tags.`{RUN_TAG}` = '{run_id}'")
        self._run = (
            known[0] if known else client.create_run(found, tags={RUN_TAG: run_id})
        ).info.run_id
        if known:
            client.update_run(self._run, "RUNNING")
        else:
            for name, value in parameters.items():
                client.log_param(self._run, name, value)

    def __call__(self, event: str, values: Mapping[str, Value]) -> None:
        try:
            self._tell(event, values)
        except Exception as error:  # likewise
            logger.warning("MLflow missed %s: %s", event, error)

    def _tell(self, event: str, values: Mapping[str, Value]) -> None:
        match event:
            case "started":
                for name in ("data", "images", "masks"):
                    self._client.set_tag(self._run, f"delineate.{name}", values[name])
            case "step":
                self._log("train", values, ("loss", "dice", "learning_rate"))
            case "epoch":
                means = [name for name in values if name not in ("epoch", "step")]
                self._log("epoch", values, means)
            case "finished" | "stopped" | "failed":
                if values.get("message"):
                    self._client.set_tag(self._run, "delineate.message", values["message"])
                if self._last is not None:
                    self._last.wait()  # numbers that are still on their way
                self._client.set_terminated(self._run, _ENDS[event])

    def _log(self, group: str, values: Mapping[str, Value], names: Iterable[str]) -> None:
        step = values["step"]
        assert isinstance(step, int), "steps are counted"
        for name in names:
            value = values[name]
            if isinstance(value, int | float):
                self._last = self._client.log_metric(
                    self._run, f"{group}/{name}", value, step=step, synchronous=False
                )
