"""`python -m django watch_folders`: the process that takes in what is put into a folder."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from delineate.studies import watch


class Command(BaseCommand):
    """Run until it is asked to stop."""

    help = __doc__

    def handle(self, *_: Any, **__: Any) -> None:
        watch.run(settings.ENVIRONMENT, watch.Patience())
