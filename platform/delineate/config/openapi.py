"""Run this module to print the HTTP API's description, from which the browser's types are made."""

from __future__ import annotations

import json
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")
django.setup()

from delineate.config.urls import api  # noqa: E402

if __name__ == "__main__":
    print(json.dumps(api.get_openapi_schema(), indent=2, sort_keys=True))
