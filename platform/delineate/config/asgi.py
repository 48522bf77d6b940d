"""The web process: HTTP and WebSockets."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")

import django
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings

# Before the handler and the consumers: they import models, which need the apps to be loaded.
django.setup(set_prefix=False)

from delineate.config.handler import OneThreadHandler  # noqa: E402
from delineate.config.sockets import sockets  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": OneThreadHandler(),
        "websocket": OriginValidator(
            AuthMiddlewareStack(URLRouter(sockets)), settings.ENVIRONMENT.origins
        ),
    }
)
