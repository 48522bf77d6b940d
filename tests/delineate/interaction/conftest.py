"""A task whose slices lie in the real store, a worker without a model, and people's sockets."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import Client

from delineate.accounts.models import User
from delineate.annotation.models import Task
from delineate.annotation.transitions import State
from delineate.projects.models import Label, Role
from delineate.studies import encoding
from delineate.studies.models import Encoding
from mlworker.contract.messages import SegmentSlice, SlicesEncoded
from tests import null_worker
from tests.delineate import factories
from tests.sockets import Socket

MODEL = "ab" * 32
ROWS, COLUMNS = 40, 50

# Equal slices share their embedding: no test may find another's.
_seeds = itertools.count(1)


@dataclass
class Workplace:
    """A task, its people, and messages to its socket."""

    task: Task
    label: Label
    annotator: User
    slice_ids: list[str]
    client: Client  # the annotator's browser

    def socket(self, client: Client | None = None, **options: str) -> Socket:
        """A workspace in a browser, the annotator's by default."""
        return Socket(f"/ws/tasks/{self.task.id}", client=client or self.client, **options)

    def prompt(self, slice_id: str, **changes: Any) -> dict[str, Any]:
        """A point in the middle of a slice."""
        point = {"x": COLUMNS / 2, "y": ROWS / 2, "positive": True}
        return {
            "kind": "prompt",
            "request_id": str(uuid.uuid4()),
            "slice_id": slice_id,
            "label_id": str(self.label.id),
            "prompts": {"points": [point], "box": None},
            "refine": None,
        } | changes

    def operation(self, slice_id: str, **changes: Any) -> dict[str, Any]:
        """An operation that empties what is drawn: it changes nothing that shows."""
        return {
            "kind": "operation",
            "slice_id": slice_id,
            "label_id": str(self.label.id),
            "client_id": "00000000-0000-4000-8000-000000000001",
            "sequence": 1,
            "base": 0,
            "action": "clear",
            "changes": {"drawn": None},
        } | changes


@pytest.fixture
def workplace(transactional_db) -> Workplace:
    """A task of three CT slices with the label liver, and a model."""
    project = factories.new_project("liver")
    pixels = np.random.default_rng(next(_seeds)).integers(
        0, 900, (3, ROWS, COLUMNS), dtype=np.int16
    )
    series = factories.new_series(factories.new_study(project), pixels=pixels)
    factories.new_model(MODEL)
    annotator = factories.new_member(project, Role.ANNOTATOR)
    return Workplace(
        task=factories.new_task(series, state=State.OPEN),
        label=factories.label_of(project, "liver"),
        annotator=annotator,
        slice_ids=[str(slice_.id) for slice_ in series.slices.order_by("index")],
        client=factories.browser_of(annotator),
    )


@pytest.fixture(autouse=True)
async def _leave_no_connection() -> AsyncIterator[None]:
    """The thread of synchronous code keeps its connection, and with it the test database."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
def model_worker(services) -> Iterator[None]:
    """Serves the worker's queues without a model; its events reach nobody by themselves."""
    with null_worker.running(services.redis_url, services.storage_url):
        yield


@pytest.fixture
def unprepared(services) -> Iterator[None]:
    """Serves prompts without a model, and nobody prepares slices for them."""
    with null_worker.running(
        services.redis_url, services.storage_url, queues=(SegmentSlice.queue,)
    ):
        yield


def encoded(*slice_ids: str, code: str | None = None, message: str = "") -> None:
    """Take note, as the server's worker does, that the model's embeddings are there, or are not."""
    rows = Encoding.objects.filter(slice_id__in=slice_ids)
    fates = [{"encoding_id": str(row.id), "code": code, "message": message} for row in rows]
    encoding.receive(
        SlicesEncoded.model_validate({"model_digest": MODEL, "slices": fates}),
    )
