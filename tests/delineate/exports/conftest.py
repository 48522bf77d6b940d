"""A way from rows to an opened zip, through the front door."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any
from zipfile import ZipFile

import pytest

from delineate.exports.build import build
from delineate.exports.models import Export
from delineate.projects.models import Project
from tests.delineate import factories


@dataclass(frozen=True)
class Fetched:
    """An export's row, and its files by path."""

    export: Export
    files: dict[str, bytes]

    def json(self, path: str) -> Any:
        """A JSON file's content."""
        return json.loads(self.files[path])

    def only(self, ending: str) -> bytes:
        """The one file whose path ends so."""
        (found,) = [data for path, data in self.files.items() if path.endswith(ending)]
        return found


@pytest.fixture
def export_of():
    """A function: export a project as its lead does, run the job, fetch the zip."""

    def export(project: Project, format: str, *, reviewed_only: bool = True) -> Fetched:
        browser = factories.browser_of(factories.lead_of(project))
        asked = browser.post(
            f"/api/projects/{project.id}/exports",
            {"format": format, "reviewed_only": reviewed_only},
            content_type="application/json",
        )
        assert asked.status_code == 201, asked.content
        row = Export.objects.get(id=asked.json()["id"])
        build(row.id)
        row.refresh_from_db()
        if row.state != "done":
            return Fetched(row, {})
        answer = browser.get(f"/api/exports/{row.id}/file")
        assert answer.status_code == 200
        data = answer.getvalue()
        with ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            files = {name: archive.read(name) for name in archive.namelist()}
        return Fetched(row, files)

    return export
