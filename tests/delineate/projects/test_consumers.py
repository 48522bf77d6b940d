"""The project page's socket, over real Redis."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.test import Client

from delineate import live
from delineate.accounts.models import User
from delineate.projects.models import Role
from delineate.projects.services import add_label, add_member, create_project, remove_member
from tests.sockets import Socket

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def livers():
    """A project, its lead, a member, and browsers signed in as each and as a stranger."""
    people = [User.objects.create(username=name) for name in ("lead", "annotator", "stranger")]
    browsers = []
    for person in people:
        browser = Client()
        browser.force_login(person)
        browsers.append(browser)
    project = create_project("Livers", by=people[0])
    add_member(project, username="annotator", role=Role.ANNOTATOR, by=people[0])
    return project, people, browsers


async def test_a_change_reaches_every_members_page():
    project, (lead, *_), (of_lead, of_annotator, _) = await livers()
    path = f"/ws/projects/{project.id}"
    async with Socket(path, client=of_lead) as one, Socket(path, client=of_annotator) as two:
        await sync_to_async(add_label)(project, name="liver", color="#aabbcc", by=lead)
        for socket in (one, two):
            assert await socket.receive() == {
                "kind": "notice",
                "what": "labels",
                "id": None,
                "data": {},
            }


async def test_a_notice_carries_its_data_and_stays_in_its_project():
    project, (lead, *_), (of_lead, *_) = await livers()
    other = await sync_to_async(create_project)("Spleens", by=lead)
    async with Socket(f"/ws/projects/{other.id}", client=of_lead) as socket:
        await sync_to_async(live.tell)(project.id, "studies")
        await sync_to_async(live.tell)(other.id, "upload", id=project.id, files_done=3)
        assert await socket.receive() == {
            "kind": "notice",
            "what": "upload",
            "id": str(project.id),
            "data": {"files_done": 3},
        }


async def test_a_strangers_page_is_closed():
    project, _, (*_, of_stranger) = await livers()
    async with Socket(f"/ws/projects/{project.id}", client=of_stranger) as socket:
        assert await socket.closed_with() == 4404


async def test_nobodys_page_is_closed():
    project, *_ = await livers()
    async with Socket(f"/ws/projects/{project.id}", client=Client()) as socket:
        assert await socket.closed_with() == 4401


async def test_another_sites_page_is_refused():
    project, _, (of_lead, *_) = await livers()
    with pytest.raises(ConnectionRefusedError):
        async with Socket(
            f"/ws/projects/{project.id}", client=of_lead, origin="http://evil.example"
        ):
            pass


async def test_who_is_removed_hears_nothing_more():
    project, (lead, annotator, _), (_, of_annotator, _) = await livers()
    async with Socket(f"/ws/projects/{project.id}", client=of_annotator) as socket:
        await sync_to_async(remove_member)(project, user_id=annotator.pk, by=lead)
        assert await socket.closed_with() == 4404


async def test_what_a_page_says_is_ignored():
    project, _, (of_lead, *_) = await livers()
    async with Socket(f"/ws/projects/{project.id}", client=of_lead) as socket:
        await socket.send_text("not json {")
        await sync_to_async(live.tell)(project.id, "studies")
        assert (await socket.receive())["what"] == "studies"
