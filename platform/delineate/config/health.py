"""Whether this process can do its work."""

from __future__ import annotations

import logging

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse

logger = logging.getLogger(__name__)

TIMEOUT_S = 1.0


def health(_request: HttpRequest) -> JsonResponse:
    """200 while the database and Redis answer, 503 otherwise; for supervisors, without sign-in."""
    database, broker = _database_answers(), _redis_answers()
    well = database and broker
    return JsonResponse(
        {"status": "ok" if well else "unwell", "database": database, "redis": broker},
        status=200 if well else 503,
    )


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        logger.warning("The database does not answer: %s", error)
        # A connection that broke is not tried again until it is closed.
        connection.close()
        return False
    return True


def _redis_answers() -> bool:
    client = redis.Redis.from_url(
        settings.ENVIRONMENT.redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )
    try:
        return bool(client.ping())
    except redis.RedisError as error:
        logger.warning("Redis does not answer: %s", error)
        return False
    finally:
        client.close()
