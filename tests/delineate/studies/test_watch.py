"""Watched folders: what is put there is taken once, reported on, and never lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from delineate import storage
from delineate.config.env import Destination
from delineate.jobs import JobState
from delineate.projects.models import Project
from delineate.studies import ingest, services
from delineate.studies.models import Slice, Study, Upload, WayIn
from delineate.studies.watch import Patience, WatchedFolder
from tests.delineate.factories import lead_of, new_project
from tests.delineate.studies.files import fates, image, written, zipped
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = Patience(unchanged_for_s=0.0, together_within_s=60.0)
NOBODY = 65534


@pytest.fixture
def project() -> Project:
    """A project of one lead."""
    return new_project()


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """An empty folder."""
    made = tmp_path / "incoming"
    made.mkdir()
    return made


def watched(
    project: Project, incoming: Path, *, patience: Patience = AT_ONCE, **more: object
) -> WatchedFolder:
    """The folder as the process watches it, for the project's lead."""
    destination = Destination(project.name, lead_of(project).username)
    environment = settings.ENVIRONMENT.model_copy(update=more)
    return WatchedFolder(incoming, destination, environment, patience)


def test_a_folder_is_one_upload_and_is_moved_when_it_is_ingested(project, incoming):
    (incoming / "Garland" / "CT").mkdir(parents=True)
    for z in range(3):
        (incoming / "Garland" / "CT" / f"{z}.dcm").write_bytes(written(image(z=float(z), seed=z)))
    watching = watched(project, incoming)
    watching.look()
    upload = Upload.objects.get()
    assert (upload.state, upload.way_in, upload.blob_count) == ("pending", WayIn.FOLDER, 3)
    assert _tree(incoming) == [f".taken/{upload.id}/Garland/CT/{z}.dcm" for z in range(3)]
    watching.look()
    assert Upload.objects.count() == 1

    ingest.ingest(upload.id)
    watching.look()

    assert _tree(incoming) == [
        "done/Garland.report.txt",
        *(f"done/Garland/CT/{z}.dcm" for z in range(3)),
    ]
    assert (incoming / "done" / "Garland.report.txt").read_text().splitlines() == [
        f"Upload {upload.id}: 3 files.",
        *(f"Garland/CT/{z}.dcm: stored" for z in range(3)),
    ]


def test_a_zip_is_one_upload(project, incoming):
    (incoming / "disc.zip").write_bytes(zipped([image(z=0.0), image(z=1.0, seed=1)]))
    upload = _take(watched(project, incoming))
    assert (upload.blob_count, fates(upload)) == (1, [("stored", "")] * 2)
    assert _tree(incoming) == ["done/disc.zip", "done/disc.zip.report.txt"]


def test_loose_files_that_come_together_are_one_upload(project, incoming):
    for z in range(3):
        (incoming / f"{z}.dcm").write_bytes(written(image(z=float(z), seed=z)))
    upload = _take(watched(project, incoming))
    assert fates(upload) == [("stored", "")] * 3
    assert _tree(incoming) == [
        "done/3 files.report.txt",
        *(f"done/3 files/{z}.dcm" for z in range(3)),
    ]


def test_a_file_that_was_refused_is_named(project, incoming):
    (incoming / "a").mkdir()
    (incoming / "a" / "letter.doc").write_bytes(b"Dear colleague")
    (incoming / "a" / "scan.dcm").write_bytes(written(image()))
    _take(watched(project, incoming))
    report = (incoming / "refused" / "a.report.txt").read_text()
    assert "a/letter.doc: refused: The file is no image of a known kind. [not_dicom]" in report
    assert "a/scan.dcm: stored" in report
    assert (incoming / "refused" / "a" / "letter.doc").exists()


def test_what_still_changes_is_not_taken(project, incoming):
    file = incoming / "scan.dcm"
    watching = watched(project, incoming, patience=Patience(unchanged_for_s=0.2))
    whole = written(image())
    for end in (100, 200, len(whole)):
        file.write_bytes(whole[:end])
        watching.look()
    assert not Upload.objects.exists()

    def is_taken() -> bool:
        watching.look()
        return Upload.objects.exists()

    wait_until(is_taken)
    assert Upload.objects.get().size_bytes == len(whole)


def test_loose_files_are_taken_even_while_more_keep_coming(project, incoming):
    patience = Patience(unchanged_for_s=0.05, together_within_s=0.5)
    watching = watched(project, incoming, patience=patience)
    coming = iter(range(10_000))

    def one_more_and_look() -> bool:
        number = next(coming)
        (incoming / f"{number}.dcm").write_bytes(written(image(z=float(number), seed=number)))
        watching.look()
        return Upload.objects.exists()

    wait_until(one_more_and_look)


def test_the_same_again_makes_no_doubles_and_overwrites_nothing(project, incoming):
    for _ in range(2):
        (incoming / "scan.dcm").write_bytes(written(image(sop="1.2.3.4")))
        upload = _take(watched(project, incoming))
    assert fates(upload) == [("duplicate", "duplicate")]
    assert Slice.objects.count() == 1
    assert _tree(incoming) == [
        "done/scan (2).dcm",
        "done/scan (2).dcm.report.txt",
        "done/scan.dcm",
        "done/scan.dcm.report.txt",
    ]


def test_links_are_not_followed(project, incoming, tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.dcm").write_bytes(written(image()))
    (incoming / "link").symlink_to(tmp_path / "elsewhere")
    (incoming / "link.dcm").symlink_to(tmp_path / "elsewhere" / "secret.dcm")
    os.mkfifo(incoming / "pipe")
    (incoming / "folder").mkdir()
    (incoming / "folder" / "inner").symlink_to(tmp_path / "elsewhere")
    (incoming / "folder" / "scan.dcm").write_bytes(written(image(seed=1)))
    watching = watched(project, incoming)
    for _ in range(3):
        watching.look()
    assert Upload.objects.get().blob_count == 1
    assert (tmp_path / "elsewhere" / "secret.dcm").exists()
    said = [line for line in caplog.messages if "only files are taken" in line]
    assert len(said) == 3
    assert not [line for line in caplog.messages if "link.dcm" in line]
    assert "link" in (incoming / "refused" / "link.dcm.report.txt").read_text()


def test_a_folder_of_ours_that_is_a_link_is_not_used(project, incoming, tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    (incoming / ".taken").symlink_to(tmp_path / "elsewhere")
    (incoming / "scan.dcm").write_bytes(written(image()))
    watching = watched(project, incoming)
    for _ in range(2):
        watching.look()
    assert not Upload.objects.exists()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert len([line for line in caplog.messages if "Not a directory" in line]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become another account.")
def test_what_cannot_be_read_is_said_once_and_taken_when_it_can(project, incoming, caplog):
    for folder in (incoming, *list(incoming.parents)[:3]):
        folder.chmod(0o777)
    file = incoming / "scan.dcm"
    file.write_bytes(written(image()))
    file.chmod(0o600)
    watching = watched(project, incoming)
    os.seteuid(NOBODY)
    try:
        for _ in range(3):
            watching.look()
    finally:
        os.seteuid(0)
    assert len([line for line in caplog.messages if "cannot be read" in line]) == 1
    assert not Upload.objects.exists()
    assert file.exists()
    file.chmod(0o644)
    file.touch()
    assert fates(_take(watching)) == [("stored", "")]


def test_what_is_too_large_for_an_upload_is_refused(project, incoming):
    (incoming / "scan.dcm").write_bytes(written(image()))
    watched(project, incoming, max_upload_bytes=100).look()
    assert not Upload.objects.exists()
    assert "put it there in parts" in (incoming / "refused" / "scan.dcm.report.txt").read_text()


def test_a_full_disk_is_said_once_and_everything_stays(project, incoming, caplog):
    (incoming / "scan.dcm").write_bytes(written(image()))
    watching = watched(project, incoming, min_free_bytes=2**60)
    for _ in range(2):
        watching.look()
    assert len([line for line in caplog.messages if "make room there" in line]) == 1
    assert (incoming / "scan.dcm").exists()


def test_an_account_without_the_right_takes_nothing(project, incoming, caplog):
    (incoming / "scan.dcm").write_bytes(written(image()))
    watching = watched(project, incoming)
    project.memberships.all().delete()
    watching.look()
    assert any("you are not a member" in line for line in caplog.messages)
    assert (incoming / "scan.dcm").exists()


def test_a_folder_that_is_away_is_said_once_and_taken_from_when_it_is_back(
    project, incoming, caplog
):
    watching = watched(project, incoming)
    shutil.rmtree(incoming)
    for _ in range(2):
        watching.look()
    assert len([line for line in caplog.messages if "No such file" in line]) == 1
    incoming.mkdir()
    (incoming / "scan.dcm").write_bytes(written(image()))
    assert fates(_take(watching)) == [("stored", "")]


def test_what_was_begun_by_a_process_that_died_is_forgotten_and_taken_again(project, incoming):
    begun = services.begin_upload(project, by=lead_of(project), way_in=WayIn.FOLDER)
    services.add_blob(begun, iter([b"half of it"]))
    (incoming / ".taken" / str(begun.id)).mkdir(parents=True)
    (incoming / "scan.dcm").write_bytes(written(image()))

    services.settle_left_behind(WayIn.FOLDER)
    upload = _take(watched(project, incoming))

    assert not storage.exists(begun.blob_key(0))
    assert (Upload.objects.get(), fates(upload)) == (upload, [("stored", "")])
    assert _tree(incoming) == ["done/scan.dcm", "done/scan.dcm.report.txt"]


def test_a_process_that_is_killed_again_and_again_loses_and_doubles_nothing(project, incoming):
    count = 30
    (incoming / "study").mkdir()
    for z in range(count):
        (incoming / "study" / f"{z}.dcm").write_bytes(written(image(z=float(z), seed=z)))
    for _ in range(2):
        with _process(project, incoming) as process:
            wait_until(partial(_has_moved_on, incoming, than=_uploads()))
            process.kill()
    with _process(project, incoming) as process:
        wait_until(lambda: not (incoming / "study").exists())
        for upload in Upload.objects.filter(state=JobState.PENDING):
            ingest.ingest(upload.id)
        wait_until(lambda: (incoming / "done" / "study.report.txt").exists())
        wait_until(lambda: (incoming / "done" / "study").exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert (Study.objects.count(), Slice.objects.count()) == (1, count)
    assert len(list((incoming / "done" / "study").iterdir())) == count
    assert not Upload.objects.filter(state=JobState.ARRIVING).exists()


@contextmanager
def _process(project: Project, incoming: Path) -> Iterator[subprocess.Popen[bytes]]:
    database = connection.settings_dict
    url = (
        f"postgres://{database['USER']}:{database['PASSWORD']}"
        f"@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    )
    # As the command does, with less patience.
    code = (
        "import django; django.setup(); from delineate.studies import watch; "
        "from django.conf import settings; patience = watch.Patience(0.0, 60.0, 0.05); "
        "watch.run(settings.ENVIRONMENT, patience)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DELINEATE_WATCH": f"{incoming}={project.id}:{lead_of(project).username}",
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _uploads() -> set[tuple[object, ...]]:
    return set(Upload.objects.values_list("id", "blob_count"))


def _has_moved_on(incoming: Path, *, than: set[tuple[object, ...]]) -> bool:
    return _uploads() != than or not (incoming / "study").exists()


def _take(watching: WatchedFolder) -> Upload:
    """Look until there is an upload, ingest it, and look again."""
    watching.look()
    upload = Upload.objects.get(state=JobState.PENDING)
    ingest.ingest(upload.id)
    watching.look()
    upload.refresh_from_db()
    return upload


def _tree(folder: Path) -> list[str]:
    found = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    return sorted(str(path) for path in found)
