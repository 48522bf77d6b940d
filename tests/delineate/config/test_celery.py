"""Tasks go to the server's queue, from whichever process and thread they are sent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SENT_FROM = """
import sys, threading, django
django.setup()
import {module}
from delineate.studies.tasks import ingest_upload_task

def tell():
    print(ingest_upload_task.app.main, ingest_upload_task.app.conf.task_default_queue)

tell()
thread = threading.Thread(target=tell)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    "module", ["delineate.config.asgi", "delineate.demo.seed", "delineate.studies.commands"]
)
def test_a_task_sent_from_anywhere_finds_its_queue(module):
    # In a process of its own: in this one the tests have made other Celery applications.
    ran = subprocess.run(
        [sys.executable, "-c", SENT_FROM.format(module=module)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert ran.stderr == ""
    assert ran.stdout == "delineate server\n" * 2
