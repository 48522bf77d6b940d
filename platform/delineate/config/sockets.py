"""Every WebSocket of the server."""

from __future__ import annotations

from django.urls import path

from delineate.projects.consumers import ProjectConsumer

sockets = [
    path("ws/projects/<uuid:project_id>", ProjectConsumer.as_asgi()),
]
