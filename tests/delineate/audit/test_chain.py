"""The trail cannot be changed, and shows it when it was."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from delineate.audit import chain, log
from delineate.audit.chain import ChainBroken, verify, verify_all
from delineate.audit.models import Event

pytestmark = pytest.mark.django_db

PROJECT = uuid4()


@pytest.fixture
def three_events():
    log.project_created(PROJECT, by=None, name="Livers")
    log.project_renamed(PROJECT, by=None, before="Livers", after="Spleens")
    log.task_returned(PROJECT, uuid4(), by=None, comment="Größer, bitte.")
    return list(Event.objects.filter(project_id=PROJECT))


def test_events_are_numbered_and_linked_in_their_own_chain(three_events):
    log.project_created(uuid4(), by=None, name="another")
    assert [event.number for event in three_events] == [1, 2, 3]
    assert three_events[0].previous_hash == ""
    assert three_events[1].previous_hash == three_events[0].hash
    assert three_events[2].previous_hash == three_events[1].hash
    assert verify(PROJECT) == 3
    log.user_created("anna", by=None, is_superuser=False)
    assert verify_all() == 5


def test_an_empty_chain_is_whole():
    assert verify(uuid4()) == 0


@pytest.mark.parametrize("act", ["update", "delete"])
def test_the_database_refuses_to_change_events(three_events, act):
    events = Event.objects.filter(pk=three_events[1].pk)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        events.update(actor="somebody else") if act == "update" else events.delete()
    assert verify(PROJECT) == 3


@pytest.mark.parametrize(
    ("change", "first_bad"),
    [
        ("UPDATE audit_event SET actor = 'eve' WHERE number = 2", 2),
        ("UPDATE audit_event SET subject = 'study 1' WHERE number = 1", 1),
        ("UPDATE audit_event SET data = '{}' WHERE number = 3", 3),
        ("UPDATE audit_event SET at = at + interval '1 second' WHERE number = 2", 2),
        ("UPDATE audit_event SET previous_hash = '' WHERE number = 3", 3),
        ("DELETE FROM audit_event WHERE number = 2", 2),
        ("DELETE FROM audit_event WHERE number = 1", 1),
    ],
)
def test_a_change_behind_the_triggers_back_is_found(three_events, change, first_bad):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_event DISABLE TRIGGER audit_event_append_only")
        cursor.execute(change)
        cursor.execute("ALTER TABLE audit_event ENABLE TRIGGER audit_event_append_only")
    with pytest.raises(ChainBroken) as broken:
        verify(PROJECT)
    assert broken.value.data == {"number": first_bad}
    with pytest.raises(ChainBroken):
        verify_all()


@pytest.mark.parametrize(
    "value", [1, 1.0, 0.1 + 0.2, 1e22, 1e-9, -2.5, True, None, "é\u2028", ["a"]]
)
def test_every_value_survives_the_database_with_its_hash(value):
    chain.append(PROJECT, actor="anna", action="x", subject="y", data={"value": value})
    assert Event.objects.get(project_id=PROJECT).data == {"value": value}
    assert verify(PROJECT) == 1


def test_what_a_stranger_typed_as_user_name_is_not_kept():
    log.sign_in_failed(None, address="127.0.0.1")
    assert Event.objects.get(project_id=None).subject == "an unknown user"


@pytest.mark.django_db(transaction=True)
def test_an_event_outside_a_transaction_is_our_own_mistake():
    with pytest.raises(AssertionError):
        log.project_created(PROJECT, by=None, name="Livers")
