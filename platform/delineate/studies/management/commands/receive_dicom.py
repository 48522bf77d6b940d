"""`python -m django receive_dicom`: the process that answers C-STORE."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from delineate.studies import dimse


class Command(BaseCommand):
    """Run until it is asked to stop."""

    help = __doc__

    def handle(self, *_: Any, **__: Any) -> None:
        dimse.run(settings.ENVIRONMENT)
