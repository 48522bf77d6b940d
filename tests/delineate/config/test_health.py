"""Health is asked by the supervisor, without a session."""

from __future__ import annotations

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client

pytestmark = pytest.mark.django_db(transaction=True)


def test_all_is_well():
    response = Client().get("/api/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "database": True, "redis": True}


def test_redis_away(settings):
    settings.ENVIRONMENT = django_settings.ENVIRONMENT.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0"}
    )
    response = Client().get("/api/health")
    assert response.status_code == 503
    assert response.json() == {"status": "unwell", "database": True, "redis": False}


def test_the_database_away_and_back(monkeypatch):
    connection.close()
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "PORT", 1)
        response = Client().get("/api/health")
        assert response.status_code == 503
        assert response.json() == {"status": "unwell", "database": False, "redis": True}
    assert Client().get("/api/health").status_code == 200
