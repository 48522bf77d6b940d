"""Notices are sent on commit and cannot break what they announce."""

from __future__ import annotations

from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import channel_layers, get_channel_layer
from django.db import transaction

from delineate import live

PROJECT = uuid4()


@pytest.mark.django_db(transaction=True)
def test_a_notice_waits_for_the_commit_and_dies_with_a_rollback():
    heard = listen_while(announce_and_commit_or_not)
    assert [notice["what"] for notice in heard] == ["studies"]


def announce_and_commit_or_not():
    with transaction.atomic():
        live.tell(PROJECT, "labels")
        transaction.set_rollback(True)
    with transaction.atomic():
        live.tell(PROJECT, "studies")


def listen_while(act):
    """The notices that reach the project's group while ``act`` runs."""

    @async_to_sync
    async def listen():
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(live.group_of(PROJECT), channel)
        await sync_to_async(act)()
        await layer.send(channel, {"type": "end"})
        heard = []
        while (message := await layer.receive(channel))["type"] != "end":
            heard.append(message["notice"])
        return heard

    return listen()


@pytest.mark.django_db(transaction=True)
def test_without_redis_the_act_stands_and_the_loss_is_logged(settings, caplog):
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]},
        }
    }
    channel_layers.backends.clear()
    try:
        with transaction.atomic():
            live.tell(PROJECT, "studies")
    finally:
        channel_layers.backends.clear()
    assert f"A notice to project.{PROJECT} was lost" in caplog.text
