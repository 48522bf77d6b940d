"""`python -m delineate.demo`: make what is missing of the demo, and print how to sign in."""

from __future__ import annotations

import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delineate.config.settings")
django.setup()

from delineate.demo.seed import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
