"""`delineate import`."""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import pytest

from delineate.config.celery import app
from delineate.errors import Invalid, NotAllowed, NotFound
from delineate.projects.models import Role
from delineate.studies import commands, deidentify
from delineate.studies.models import Slice, Subject, Upload
from tests.delineate import factories
from tests.delineate.studies.files import image, written, zipped

# Real transactions: what follows on commit must follow while the command waits.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _worker():
    """A worker that takes a task as soon as it is sent."""
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


@pytest.fixture
def project():
    """A project of one lead."""
    return factories.new_project()


def run(project, *paths, user=None):
    """The command's exit status."""
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    name = (user or factories.lead_of(project)).username
    given = [*map(str, paths), "--project", str(project), "--as", name]
    return commands.run(parser.parse_args(given))


def test_a_zip_and_a_folder_are_imported(project, tmp_path, capsys):
    folder = tmp_path / "series" / "deep"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(written(image(z=float(number), seed=number)))
    other = image(study="1.2.4", series="1.2.4.1", seed=9)
    (tmp_path / "other.zip").write_bytes(zipped([other]))

    assert run(project, tmp_path / "series", tmp_path / "other.zip") == 0

    out = capsys.readouterr().out
    assert "\rstored 0.0 of 0.0 MB" in out
    assert "4 stored" in out
    assert Slice.objects.filter(series__study__project=project).count() == 4


def test_a_mapping_says_who_is_on_a_folders_images(project, tmp_path, capsys):
    folder = tmp_path / "set" / "first"
    folder.mkdir(parents=True)
    (folder / "a.dcm").write_bytes(written(image(patient=None)))
    subjects = tmp_path / "who.csv"
    subjects.write_text("file,subject\nfirst/a.dcm,Anna\nfirst/b.dcm,Otto\n")

    assert run(project, tmp_path / "set", "--subjects", subjects) == 0

    out = capsys.readouterr().out
    assert "says who is on 1 file. Of no file in the upload: row 3. [mapping_unmatched]" in out
    expected = deidentify.pseudonym(
        deidentify.identity_named("Anna"), key=bytes(project.pseudonym_key)
    )
    assert Subject.objects.get().pseudonym == expected
    with pytest.raises(Invalid, match="nothing at"):
        run(project, tmp_path / "set", "--subjects", tmp_path / "away.csv")


def test_what_is_refused_is_listed_by_number(project, tmp_path, capsys):
    (tmp_path / "anna.txt").write_text("no image")
    assert run(project, tmp_path / "anna.txt") == 1
    out = capsys.readouterr().out
    assert "file 1: The file is no image of a known kind. [not_dicom]" in out
    assert "anna" not in out


def test_a_folder_may_have_more_files_than_a_process_may_open(project, tmp_path):
    # Little more than is open already, however much the tests before this one have left open.
    most = max(int(opened.name) for opened in Path("/dev/fd").iterdir()) + 40
    for number in range(most):
        (tmp_path / str(number)).write_bytes(b"no image")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        assert run(project, tmp_path) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert Upload.objects.get().blob_count == most


def test_what_stands_in_the_way_is_said_before_anything_is_done(project, tmp_path):
    there = tmp_path / "there"
    there.write_bytes(written(image()))
    with pytest.raises(Invalid, match="nothing at"):
        run(project, tmp_path / "away")
    with pytest.raises(NotFound, match="0 projects"):
        run("Spleens", there, user=factories.lead_of(project))
    with pytest.raises(NotFound, match="no user"):
        run(project, there, user=argparse.Namespace(username="nobody"))
    with pytest.raises(NotAllowed):
        run(project, there, user=factories.new_member(project, Role.ANNOTATOR))
    assert not Upload.objects.exists()
