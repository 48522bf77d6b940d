"""Every WebSocket of the server."""

from __future__ import annotations

from django.urls import path

from delineate.interaction.consumers import TaskConsumer
from delineate.projects.consumers import ProjectConsumer

sockets = [
    path("ws/projects/<uuid:project_id>", ProjectConsumer.as_asgi()),
    path("ws/tasks/<uuid:task_id>", TaskConsumer.as_asgi()),
]
