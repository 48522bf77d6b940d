"""What the browser makes of files that are dropped at once, read here (upload/tar.test.ts)."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from delineate.studies.archive import Archive

GOLDEN = Path(__file__).parents[3] / "frontend" / "src" / "upload" / "golden.tar"
FILES = {
    "a.dcm": b"one",
    "anna/empty": b"",
    f"anna/{'long/' * 30}x": b"x" * 512,
    "Köln/中.dcm": b"y" * 513,
    f"{'é' * 60}.dcm": b"z",
}


def test_the_servers_reader_reads_it():
    with Archive([lambda: io.BytesIO(GOLDEN.read_bytes())]) as opened:
        entries = list(opened.entries())
        assert [opened.read(entry) for entry in entries] == list(FILES.values())
    assert entries[0].folder == entries[4].folder == ""
    assert entries[1].folder == entries[2].folder != entries[3].folder != ""


def test_any_other_reader_reads_it():
    with tarfile.open(GOLDEN) as opened:
        assert opened.getnames() == list(FILES)
