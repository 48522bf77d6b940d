"""Prints the HTTP API's OpenAPI document: `python -m delineate.config.openapi`."""

from __future__ import annotations

import json
import os
import sys

import django


def main() -> None:
    """Write the document to standard output, the same for the same code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")
    django.setup()
    # The API's modules hold models: they can be imported only now.
    from delineate.config.urls import api  # noqa: PLC0415

    json.dump(api.get_openapi_schema(), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
