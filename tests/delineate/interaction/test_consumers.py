from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from delineate.annotation.models import Draft, MaskRevision, Operation
from delineate.annotation.services import accept_draft, submit
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER
from delineate.projects.models import Label, Role
from delineate.projects.services import add_label, remove_member
from delineate.registry.jobs import deploy
from delineate.registry.models import ModelVersion
from delineate.studies import encoding
from delineate.studies.models import Encoding
from delineate.studies.services import delete_study
from mlworker.contract import broker, masks
from mlworker.contract.masks import RunLengths
from mlworker.contract.messages import EncodeSlices
from tests.delineate import factories
from tests.delineate.interaction.conftest import COLUMNS, MODEL, ROWS, Workplace, encoded
from tests.sockets import Socket
from tests.waiting import PATIENCE_S

in_thread = sync_to_async


async def answer(socket: Socket, message: dict[str, Any]) -> dict[str, Any]:
    """What the server says to a message, notices aside."""
    await socket.send(message)
    while True:
        said: dict[str, Any] = await socket.receive(timeout_s=20)
        if said["kind"] not in ("changed", "prepared"):
            return said


async def proposal(socket: Socket, workplace: Workplace, slice_id: str, **changes: Any) -> Any:
    """The model's answer, by way of preparing the slice if need be."""
    said = await answer(socket, workplace.prompt(slice_id, **changes))
    if said["kind"] == "preparing":
        # The null worker has made the embedding by the time its event could be handled.
        await in_thread(encoded)(slice_id)
        prepared = await socket.receive(timeout_s=20)
        assert prepared["kind"] == "prepared", prepared
        while True:
            said = await answer(socket, workplace.prompt(slice_id, **changes))
            if said["kind"] != "preparing":
                break
            await in_thread(encoded)(slice_id)
    assert said["kind"] == "proposal", said
    return said


async def test_a_member_is_welcomed(workplace: Workplace) -> None:
    async with workplace.socket() as socket:
        assert await socket.receive() == {
            "kind": "welcome",
            "protocol_version": 1,
            "model_digest": MODEL,
            "may_annotate": True,
        }


async def test_a_prompt_is_prepared_for_answered_saved_and_accepted(
    workplace: Workplace, model_worker: None
) -> None:
    slice_id = workplace.slice_ids[1]
    async with workplace.socket() as socket:
        await socket.receive()
        said = await proposal(socket, workplace, slice_id)
        mask = RunLengths.model_validate(said["proposal"]["mask"])
        assert (mask.height, mask.width) == (ROWS, COLUMNS)
        assert masks.decode(mask)[ROWS // 2, COLUMNS // 2]
        assert said["proposal"]["model_digest"] == MODEL
        assert said["timing"]["encode_ms"] == 0

        changes = {"prompts": said["proposal"]["prompts"], "proposal": said["proposal"]}
        saved = await answer(
            socket, workplace.operation(slice_id, action="prompt", changes=changes)
        )
        assert (saved["kind"], saved["version"]) == ("saved", 1)

    revision = await in_thread(accept_draft)(
        workplace.task,
        slice_id=uuid.UUID(slice_id),
        label_id=workplace.label.id,
        version=1,
        active_seconds=1,
        by=workplace.annotator,
    )
    assert RunLengths.model_validate(revision.mask) == mask
    assert revision.model_digest == MODEL


async def test_of_prompts_that_wait_the_latest_takes_the_place_of_the_others(
    workplace: Workplace, settings
) -> None:
    # Without a worker the first one stays in flight until its time is up.
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"click_timeout_s": 1.0})
    prompts = [workplace.prompt(workplace.slice_ids[0]) for _ in range(3)]
    async with workplace.socket() as socket:
        await socket.receive()
        for prompt in prompts:
            await socket.send(prompt)
        said = [await socket.receive(timeout_s=20) for _ in prompts]

    assert [(each["request_id"], each["code"]) for each in said] == [
        (prompts[1]["request_id"], "superseded"),
        (prompts[0]["request_id"], "worker_timeout"),
        (prompts[2]["request_id"], "worker_timeout"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '{"kind":"guess"}',
        '{"kind":"prepare","slice_ids":[]}',
        "x" * 2**21 + "x",
    ],
    ids=["nothing", "no JSON", "a list", "unknown", "incomplete", "too long"],
)
async def test_a_message_that_is_not_understood_is_refused_and_the_session_goes_on(
    workplace: Workplace, text: str
) -> None:
    slice_id = workplace.slice_ids[0]
    async with workplace.socket() as socket:
        await socket.receive()
        await socket.send_text(text)
        refused = await socket.receive()
        assert (refused["kind"], refused["code"]) == ("refused", "malformed_message")
        assert refused["message"].endswith(".")
        assert (await answer(socket, workplace.operation(slice_id)))["kind"] == "saved"


async def test_what_the_worker_refuses_keeps_its_code(
    workplace: Workplace, model_worker: None
) -> None:
    slice_id = workplace.slice_ids[0]
    outside = {"points": [{"x": COLUMNS, "y": 1, "positive": True}], "box": None}
    expired = {"kind": "previous_logits", "proposal_id": str(uuid.uuid4())}
    async with workplace.socket() as socket:
        await socket.receive()
        await proposal(socket, workplace, slice_id)
        for changes, code in (
            ({"prompts": outside}, "prompt_outside"),
            ({"prompts": {"points": [], "box": None}}, "prompt_empty"),
            ({"refine": expired}, "refinement_expired"),
        ):
            prompt = workplace.prompt(slice_id, **changes)
            refused = await answer(socket, prompt)
            assert (refused["kind"], refused["code"]) == ("refused", code)
            assert refused["request_id"] == prompt["request_id"]


async def test_who_waits_for_a_slice_that_cannot_be_prepared_is_told(
    workplace: Workplace, unprepared: None
) -> None:
    broken, whole = workplace.slice_ids[:2]
    prompts = [workplace.prompt(slice_id) for slice_id in (broken, broken, whole)]
    async with workplace.socket() as socket:
        await socket.receive()
        for prompt in prompts:
            assert (await answer(socket, prompt))["kind"] == "preparing"
        await in_thread(encoded)(
            broken, whole, code="artifact_missing", message="Its pixels are missing."
        )
        said = [await socket.receive() for _ in prompts]

        assert {each["request_id"] for each in said} == {each["request_id"] for each in prompts}
        for each in said:
            assert (each["kind"], each["code"]) == ("refused", "encoding_failed")
            assert each["message"] == "This slice cannot be prepared: Its pixels are missing."
        # Asked again, it is tried again.
        prompt = workplace.prompt(whole)
        assert (await answer(socket, prompt))["kind"] == "preparing"
        await in_thread(encoded)(whole)
        assert await socket.receive() == {"kind": "prepared", "slice_ids": [whole]}


async def test_who_waits_for_a_slice_that_is_given_up_is_told(
    workplace: Workplace, unprepared: None, services
) -> None:
    slice_id = workplace.slice_ids[0]
    async with workplace.socket() as socket:
        await socket.receive()
        assert (await answer(socket, workplace.prompt(slice_id)))["kind"] == "preparing"
        await in_thread(_give_up)(slice_id, redis_url=services.redis_url)
        refused = await socket.receive()
        assert (refused["kind"], refused["code"]) == ("refused", "encoding_failed")
        # It was tried often enough: the next one is refused at once.
        again = await answer(socket, workplace.prompt(slice_id))
        assert (again["kind"], again["code"]) == ("refused", "encoding_failed")


async def test_slices_on_screen_are_prepared_before_anybody_asks(workplace: Workplace) -> None:
    first, second, _ = workplace.slice_ids
    stranger = str(uuid.uuid4())
    async with workplace.socket() as socket:
        await socket.receive()
        await socket.send({"kind": "prepare", "slice_ids": [stranger, second, first]})
        wanted = {second: broker.PRIORITY_NOW, first: broker.PRIORITY_SOON}
        async with asyncio.timeout(PATIENCE_S):
            while await in_thread(_priorities)() != wanted:
                await asyncio.sleep(0.02)
        await in_thread(encoded)(first, second)
        prepared = await socket.receive()
        assert (prepared["kind"], set(prepared["slice_ids"])) == ("prepared", {first, second})


async def test_without_a_worker_a_prompt_is_refused_in_time(workplace: Workplace, settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"click_timeout_s": 0.5})
    slice_id = workplace.slice_ids[0]
    async with workplace.socket() as socket:
        await socket.receive()
        refused = await answer(socket, workplace.prompt(slice_id))
        assert (refused["kind"], refused["code"]) == ("refused", "worker_timeout")
        assert (await answer(socket, workplace.operation(slice_id)))["kind"] == "saved"


async def test_slices_and_labels_that_are_not_the_tasks_are_gone(
    workplace: Workplace, model_worker: None
) -> None:
    slice_id = workplace.slice_ids[0]
    async with workplace.socket() as socket:
        await socket.receive()
        for changes, code in (
            ({"slice_id": str(uuid.uuid4())}, "slice_gone"),
            ({"label_id": str(uuid.uuid4())}, "label_gone"),
        ):
            refused = await answer(socket, workplace.prompt(slice_id) | changes)
            assert (refused["kind"], refused["code"]) == ("refused", code)
            refused = await answer(socket, workplace.operation(slice_id) | changes)
            assert (refused["kind"], refused["code"]) == ("refused", code)


async def test_a_study_that_is_deleted_meanwhile_ends_no_session(
    workplace: Workplace, model_worker: None
) -> None:
    slice_id = workplace.slice_ids[0]
    project = workplace.label.project
    lead = await in_thread(factories.lead_of)(project)
    async with workplace.socket() as socket:
        await socket.receive()
        await proposal(socket, workplace, slice_id)
        await in_thread(delete_study)(
            await in_thread(lambda: workplace.task.series.study)(), by=lead
        )
        assert await socket.receive() == {"kind": "changed", "what": "study_deleted"}
        refused = await answer(socket, workplace.prompt(slice_id))
        assert (refused["kind"], refused["code"]) == ("refused", "slice_gone")


async def test_whoever_is_removed_from_the_project_is_shown_out(workplace: Workplace) -> None:
    lead = await in_thread(factories.lead_of)(workplace.label.project)
    async with workplace.socket() as socket:
        await socket.receive()
        await in_thread(remove_member)(
            workplace.label.project, user_id=workplace.annotator.pk, by=lead
        )
        assert await socket.closed_with() == 4404


async def test_operations_are_applied_in_order_and_an_old_base_gets_the_draft(
    workplace: Workplace,
) -> None:
    slice_id = workplace.slice_ids[0]
    drawn = masks.empty(ROWS, COLUMNS).model_dump(mode="json")
    async with workplace.socket() as socket:
        await socket.receive()
        for number in range(5):
            await socket.send(workplace.operation(slice_id, sequence=number + 1, base=number))
        said = [await socket.receive() for _ in range(6)]  # one notice: the task has begun
        saved = [each for each in said if each["kind"] == "saved"]
        assert [each["version"] for each in saved] == [1, 2, 3, 4, 5]

        stale = workplace.operation(slice_id, sequence=6, base=3, changes={"drawn": drawn})
        refused = await answer(socket, stale)
        assert (refused["code"], refused["version"], refused["sequence"]) == ("stale_base", 5, 6)
        assert refused["current"]["drawn"] is None
        repeat = await answer(socket, workplace.operation(slice_id, sequence=5, base=4))
        assert (repeat["kind"], repeat["version"]) == ("saved", 5)
    assert await in_thread(Operation.objects.count)() == 5


async def test_while_a_reviewer_looks_nothing_changes(
    workplace: Workplace, model_worker: None
) -> None:
    slice_id = workplace.slice_ids[0]
    place = {"slice_id": uuid.UUID(slice_id), "label_id": workplace.label.id}
    await in_thread(accept_draft)(
        workplace.task, **place, version=0, active_seconds=1, by=workplace.annotator
    )
    await in_thread(submit)(workplace.task, by=workplace.annotator)
    async with workplace.socket() as socket:
        await socket.receive()
        for message in (workplace.operation(slice_id), workplace.prompt(slice_id)):
            refused = await answer(socket, message)
            assert (refused["kind"], refused["code"]) == ("refused", "task_closed")
    assert await in_thread(Draft.objects.filter(version__gt=0).count)() == 0
    assert await in_thread(MaskRevision.objects.count)() == 1


async def test_two_workspaces_share_a_draft_and_neither_overwrites_the_other(
    workplace: Workplace,
) -> None:
    slice_id = workplace.slice_ids[0]
    other = await in_thread(factories.new_member)(workplace.label.project, Role.ANNOTATOR)
    browser = await in_thread(factories.browser_of)(other)
    async with workplace.socket() as mine, workplace.socket(browser) as theirs:
        await mine.receive()
        await theirs.receive()
        assert (await answer(mine, workplace.operation(slice_id)))["kind"] == "saved"
        late = workplace.operation(slice_id, client_id=str(uuid.uuid4()))
        refused = await answer(theirs, late)
        assert (refused["code"], refused["version"]) == ("stale_base", 1)


async def test_strangers_and_other_pages_do_not_come_in(workplace: Workplace) -> None:
    stranger = await in_thread(factories.new_user)()
    browser = await in_thread(factories.browser_of)(stranger)
    async with workplace.socket(browser) as socket:
        assert await socket.closed_with() == 4404
    with pytest.raises(ConnectionRefusedError):
        async with workplace.socket(origin="https://elsewhere.example"):
            pass


async def test_a_project_without_a_model_says_so(workplace: Workplace) -> None:
    await in_thread(ModelVersion.objects.all().delete)()
    async with workplace.socket() as socket:
        assert await socket.closed_with() == 4409


async def test_a_session_keeps_its_model_when_another_one_takes_over(
    workplace: Workplace, model_worker: None
) -> None:
    project, slice_id = workplace.label.project, workplace.slice_ids[0]
    lead = await in_thread(factories.lead_of)(project)
    other = await in_thread(factories.new_model)("cd" * 32, is_default=False)
    async with workplace.socket() as socket:
        await socket.receive()
        await proposal(socket, workplace, slice_id)
        await in_thread(transaction.atomic(deploy))(other, project, by=lead, change="pin")
        # Whatever makes the session look anew what it may do.
        await in_thread(add_label)(project, name="kidney", color="#112233", by=lead)
        assert await socket.receive() == {"kind": "changed", "what": "labels"}
        said = await proposal(socket, workplace, slice_id)
        assert said["proposal"]["model_digest"] == MODEL
    async with workplace.socket() as socket:
        assert (await socket.receive())["model_digest"] == other.digest


async def test_a_label_that_is_added_is_announced(workplace: Workplace) -> None:
    lead = await in_thread(factories.lead_of)(workplace.label.project)
    async with workplace.socket() as socket:
        await socket.receive()
        await in_thread(add_label)(workplace.label.project, name="kidney", color="#112233", by=lead)
        assert await socket.receive() == {"kind": "changed", "what": "labels"}
    assert await in_thread(Label.objects.count)() == 2


def _priorities() -> dict[str, int]:
    return {str(row.slice_id): row.priority for row in Encoding.objects.all()}


def _give_up(slice_id: str, *, redis_url: str) -> None:
    """Let a slice be silent for the last time, while a worker is alive."""
    Encoding.objects.filter(slice_id=slice_id).update(
        attempt=MAX_ATTEMPTS, heartbeat_at=timezone.now() - 2 * SILENT_AFTER
    )
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"heartbeat:{EncodeSlices.queue}", time.time(), ex=60)
    encoding.sweep()
