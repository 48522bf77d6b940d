"""A workspace on a series in quarantine: none is opened, and one that was open answers no more."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.test import Client

from delineate.projects.models import Role
from delineate.studies.models import Encoding
from tests.delineate.factories import browser_of, hold, new_member
from tests.delineate.interaction.conftest import Workplace


async def test_its_socket_is_closed_to_everybody(workplace: Workplace) -> None:
    for browser in await sync_to_async(_browsers_of_each_role)(workplace):
        async with workplace.socket(browser) as socket:
            assert await socket.closed_with() == 4423


async def test_an_open_workspace_does_nothing_more(workplace: Workplace) -> None:
    slice_id = workplace.slice_ids[0]
    async with workplace.socket() as socket:
        assert (await socket.receive())["kind"] == "welcome"
        await sync_to_async(hold)(workplace.task.series)
        for message in (workplace.prompt(slice_id), workplace.operation(slice_id)):
            await socket.send(message)
            said = await socket.receive()
            assert (said["kind"], said["code"]) == ("refused", "in_quarantine")
        await socket.send({"kind": "prepare", "slice_ids": [slice_id]})
        assert await socket.is_silent()
    assert not await Encoding.objects.aexists()


def _browsers_of_each_role(workplace: Workplace) -> list[Client]:
    hold(workplace.task.series)
    project = workplace.task.series.study.project
    return [browser_of(new_member(project, role)) for role in Role]
