"""The commands in docs/api.md work as they stand, in their order, against a server that listens."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from delineate import storage
from delineate.accounts.tokens import make_token
from delineate.exports.build import build
from delineate.studies import ingest
from delineate.studies.models import Series
from tests.delineate.factories import accept_mask, label_of, lead_of, new_project, new_task
from tests.delineate.studies.files import image, zipped

GUIDE = Path(__file__).parents[2] / "docs/api.md"
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def say(live_server, tmp_path) -> Callable[..., Any]:
    """A function: run the guide's next command with these variables; its JSON, or None."""
    if shutil.which("curl") is None:
        pytest.skip("No curl: install it to run the commands of the guide.")
    commands = iter(COMMANDS)

    def say_next(**variables: object) -> Any:
        words = {"DELINEATE": live_server.url, **{k: str(v) for k, v in variables.items()}}
        # --noproxy: the server is on this machine, whatever the environment says of others.
        script = f"curl() {{ command curl --noproxy '*' \"$@\"; }}\n{next(commands)}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={"PATH": os.environ["PATH"], **words},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout else None

    return say_next


@pytest.mark.django_db(transaction=True)
def test_from_images_to_masks_as_the_guide_says(say, tmp_path):
    project = new_project("liver")
    lead = lead_of(project)
    token = {"DELINEATE_TOKEN": make_token(lead, name="the guide", by=lead).secret}
    here = {**token, "PROJECT": project.id}
    (tmp_path / "scans.zip").write_bytes(zipped([image(z=0.0), image(z=1.0)]))

    assert say(**token)["username"] == lead.username
    assert [each["id"] for each in say(**token)] == [str(project.id)]
    upload = say(**here)
    assert upload["state"] == "pending"
    ingest.ingest(UUID(upload["id"]))
    report = say(**token, UPLOAD=upload["id"])
    assert (report["state"], report["fates"]) == ("done", {"stored": 2})
    (study,) = say(**here)
    series = Series.objects.get()
    assert study["series"][0]["series_uid"] == series.series_uid
    headers = say(**here, STUDY_UID=series.study.study_uid, SERIES_UID=series.series_uid)
    assert [header["00080060"]["Value"] for header in headers] == [["CT"], ["CT"]]

    mask = np.eye(8, 10) > 0
    accept_mask(new_task(series), mask, index=0, label=label_of(project, "liver"))
    export = say(**here)
    assert export["state"] == "pending"
    build(UUID(export["id"]))
    assert say(**token, EXPORT=export["id"])["state"] == "done"
    assert say(**token, EXPORT=export["id"]) is None
    with zipfile.ZipFile(tmp_path / "masks.zip") as fetched:
        assert any(name.endswith("liver.nii.gz") for name in fetched.namelist())
    with pytest.raises(StopIteration):  # every command of the guide was run
        say()
    storage.delete_prefix("studies/")


def test_the_guide_names_every_refusal_of_tokens():
    code = re.compile(r'code="(token_\w+|session_needed)"')
    refusals = {
        found
        for folder in ("accounts", "config")
        for module in (GUIDE.parents[1] / "platform/delineate" / folder).glob("*.py")
        for found in code.findall(module.read_text())
    }
    # Told where a token is made.
    refusals -= {"token_name_invalid", "token_days_invalid"}
    assert refusals == set(re.findall(r"`(token_\w+|session_needed)`", GUIDE.read_text()))
    assert len(refusals) == 5
