"""A click through the real parts: socket, broker, the worker's processes, store, database.

The model is the small untrained one: what it proposes means nothing, how it travels is the product.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async

from delineate import storage
from delineate.annotation.models import MaskRevision
from delineate.annotation.services import accept_draft
from delineate.jobs import JobState
from delineate.registry.models import ModelVersion
from delineate.studies.models import Encoding
from mlworker.contract import masks
from mlworker.contract.artifacts import checkpoint_key
from mlworker.contract.masks import RunLengths
from mlworker.model.checkpoint import digest, untrained
from tests.delineate import factories
from tests.delineate.interaction.conftest import COLUMNS, ROWS, Workplace
from tests.sockets import Socket

REPOSITORY = Path(__file__).parents[3]
in_thread = sync_to_async


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """The demo's model."""
    return untrained("vit_t", seed=34)


@pytest.fixture
def real_model(workplace: Workplace, checkpoint: bytes) -> str:
    """Its digest; it lies in the store and answers by default."""
    ModelVersion.objects.all().delete()
    storage.put(checkpoint_key(digest(checkpoint)), checkpoint)
    return factories.new_model(digest(checkpoint)).digest


@contextmanager
def process(*arguments: str, database: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker as `delineate up` starts it; killed at the end."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}/platform:{REPOSITORY}"}
    if database is not None:
        environment["DATABASE_URL"] = database
    with subprocess.Popen(
        [sys.executable, "-m", "celery", *arguments, "--without-gossip", "--without-mingle"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def model_process(queue: str) -> Any:
    """The worker's process for ``queue``."""
    return process("-A", "mlworker.app", "worker", "-Q", queue, "--pool=solo", "-n", f"{queue}@t")


@pytest.fixture
def system(services, broker, real_model: str, settings) -> Iterator[None]:
    """The encode queue's process, and the server's that takes note of what it made."""
    test_database = services.database_url.rsplit("/", 1)[0] + "/test_delineate"
    server = ("-A", "delineate.config.celery", "worker", "-Q", "server", "--pool=solo")
    with model_process("encode"), process(*server, "-n", "server@t", database=test_database):
        yield


async def said(socket: Socket, *kinds: str) -> dict[str, Any]:
    """The next message of these kinds."""
    while True:
        message: dict[str, Any] = await socket.receive(timeout_s=90)
        if message["kind"] in kinds:
            return message


async def test_a_click_is_prepared_for_answered_kept_and_costs_no_second_encoding(
    workplace: Workplace, system: None, broker: redis.Redis, real_model: str
) -> None:
    first, second = workplace.slice_ids[:2]
    with model_process("interactive"):
        async with workplace.socket() as socket:
            await said(socket, "welcome")
            # Not prepared: the page repeats its prompt once it is told that it is.
            prompt = workplace.prompt(first)
            await socket.send(prompt)
            answer = await said(socket, "preparing", "refused")
            while answer["kind"] == "refused":  # the process is still loading the model's library
                assert answer["code"] == "worker_timeout", answer
                await socket.send(prompt)
                answer = await said(socket, "preparing", "refused")
            while first not in (await said(socket, "prepared"))["slice_ids"]:
                pass
            await socket.send(prompt)
            proposal = (await said(socket, "proposal"))["proposal"]
            assert proposal["model_digest"] == real_model

            # Its neighbours were prepared with it; from here on no click encodes anything.
            while await in_thread(_owed)():
                await asyncio.sleep(0.02)
            attempts = await in_thread(_attempts)()
            for slice_id in workplace.slice_ids * 5:
                await socket.send(workplace.prompt(slice_id))
                clicked = await said(socket, "proposal", "preparing", "refused")
                assert clicked["kind"] == "proposal", clicked
                assert clicked["timing"]["encode_ms"] == 0
            assert await in_thread(_attempts)() == attempts
            assert broker.llen("encode") == 0

            # A stroke, and a prompt that refines the mask as it is now.
            drawn = masks.decode(RunLengths.model_validate(proposal["mask"]))
            drawn[: ROWS // 2] = ~drawn[: ROWS // 2]
            edited = {"kind": "edited_mask", "mask": masks.encode(drawn).model_dump(mode="json")}
            await socket.send(workplace.prompt(first, refine=edited))
            refined = await said(socket, "proposal", "refused")
            assert refined["kind"] == "proposal", refined

            changes = {"prompts": proposal["prompts"], "proposal": proposal}
            await socket.send(workplace.operation(second, action="prompt", changes=changes))
            assert (await said(socket, "saved", "refused"))["code"] == "seal_broken"
            await socket.send(workplace.operation(first, action="prompt", changes=changes))
            assert (await said(socket, "saved", "refused"))["kind"] == "saved"

    await in_thread(accept_draft)(
        workplace.task,
        slice_id=uuid.UUID(first),
        label_id=workplace.label.id,
        version=1,
        active_seconds=1,
        by=workplace.annotator,
    )
    revision = await in_thread(MaskRevision.objects.get)()
    assert revision.mask == proposal["mask"]
    assert (revision.mask["height"], revision.mask["width"]) == (ROWS, COLUMNS)
    assert (revision.model_digest, revision.first_proposal) == (real_model, proposal["mask"])


async def test_after_the_models_process_was_killed_the_session_goes_on(
    workplace: Workplace, system: None, real_model: str, settings
) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"click_timeout_s": 2.0})
    slice_id = workplace.slice_ids[0]
    async with workplace.socket() as socket:
        await said(socket, "welcome")
        with model_process("interactive") as worker:
            await _until_proposed(socket, workplace, slice_id)
            worker.kill()
            await asyncio.to_thread(worker.wait)
            await socket.send(workplace.prompt(slice_id))
            refused = await said(socket, "proposal", "refused")
            assert (refused["kind"], refused["code"]) == ("refused", "worker_timeout")
            await socket.send(workplace.operation(slice_id))
            assert (await said(socket, "saved", "refused"))["kind"] == "saved"
        with model_process("interactive"):
            await _until_proposed(socket, workplace, slice_id)


async def _until_proposed(socket: Socket, workplace: Workplace, slice_id: str) -> None:
    """Ask until the model answers: it may have to start, and the slice to be prepared."""
    answer: dict[str, Any] = {"kind": "refused"}
    while answer["kind"] != "proposal":
        await socket.send(workplace.prompt(slice_id))
        answer = await said(socket, "proposal", "preparing", "refused")


def _owed() -> int:
    return Encoding.objects.exclude(state=JobState.DONE).count()


def _attempts() -> list[int]:
    return list(Encoding.objects.order_by("slice__index").values_list("attempt", flat=True))
