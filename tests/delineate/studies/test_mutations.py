"""Damaged copies of the conformance files through the whole ingest: each has a named outcome.

A few here; benchmarks/mutations.py runs thousands, by way of DELINEATE_MUTATIONS.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path

import psutil
import pytest

from delineate.studies import ingest
from delineate.studies.models import Slice
from delineate.studies.reader import readers
from tests.delineate.factories import browser_of, lead_of, new_project
from tests.delineate.studies.files import send, zipped
from tests.delineate.studies.mutations import mutated

pytestmark = pytest.mark.django_db(transaction=True)

COUNT = int(os.environ.get("DELINEATE_MUTATIONS", "200"))
AT_ONCE = 100
LARGEST = 2 * 1024**2  # of a file that is mutated: larger ones are not stranger
MAY_TAKE_BYTES = 1024**3


def test_every_damaged_file_has_a_named_outcome(shared_folder, monkeypatch, caplog):
    files = [
        path
        for path in sorted((shared_folder / "data/dicom/conformance").rglob("*"))
        if path.is_file() and 0 < path.stat().st_size <= LARGEST
    ]
    assert len(files) > 100
    taken: defaultdict[int, float] = defaultdict(float)
    peak = 0
    _time_each_file(monkeypatch, taken)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for start in range(0, COUNT, AT_ONCE):
        seeds = range(start, min(start + AT_ONCE, COUNT))
        batch = [_mutated(files, seed) for seed in seeds]
        project = new_project()
        upload = send(browser_of(lead_of(project)), project, zipped(batch))
        taken.clear()
        with caplog.at_level(logging.WARNING):
            ingest.ingest(upload.id)
        upload.refresh_from_db()
        assert upload.state == "done"
        assert len(upload.report) == len(batch)
        assert all(re.fullmatch(r"[a-z_]+", line["code"] or "stored") for line in upload.report)
        assert all(line["message"] for line in upload.report if line["code"])
        assert json.dumps(upload.report, allow_nan=False)
        outcomes.update(line["code"] or "stored" for line in upload.report)
        slowest = max([slowest, *taken.values()])
        peak = max(peak, _peak_bytes())
        assert peak <= MAY_TAKE_BYTES
        project.studies.all().delete()
    # pydicom's own warnings are of what damages the files.
    assert not [record for record in caplog.records if record.name.startswith("delineate")]
    assert not Slice.objects.exists()
    assert outcomes["stored"] > 0
    print(json.dumps({"slowest_s": slowest, "peak_bytes": peak, "outcomes": outcomes}))


def _mutated(files: list[Path], seed: int) -> bytes:
    return mutated(random.Random(seed).choice(files).read_bytes(), seed=seed) or b"\0"


def _time_each_file(monkeypatch: pytest.MonkeyPatch, taken: defaultdict[int, float]) -> None:
    for step in ("_begin", "_take"):
        _time_step(monkeypatch, step, taken)


def _time_step(monkeypatch: pytest.MonkeyPatch, step: str, taken: defaultdict[int, float]) -> None:
    timed = getattr(ingest._Run, step)

    def run(self, entry, *more):
        began = time.monotonic()
        try:
            return timed(self, entry, *more)
        finally:
            taken[entry.number] += time.monotonic() - began

    monkeypatch.setattr(ingest._Run, step, run)


def _peak_bytes() -> int:
    """The reading processes', or this one's where there is none."""
    return max(_peak_of(reader._process) for reader in readers().both)


def _peak_of(process: subprocess.Popen[bytes] | None) -> int:
    status = Path(f"/proc/{psutil.Process().pid if process is None else process.pid}/status")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(kilobytes) * 1024
