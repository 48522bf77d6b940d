"""`delineate export`."""

from __future__ import annotations

import argparse
from zipfile import ZipFile

import numpy as np
import pytest

from delineate.config.celery import app
from delineate.errors import Conflict, NotAllowed, NotFound
from delineate.exports import commands
from delineate.projects.models import Role
from tests.delineate import factories

# Real transactions: what follows on commit must follow while the command waits.
pytestmark = pytest.mark.django_db(transaction=True)

MASK = np.eye(8, 10) > 0


@pytest.fixture(autouse=True)
def _worker():
    """A worker that takes a task as soon as it is sent."""
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


@pytest.fixture
def project():
    """A project with one reviewed mask of each of two labels, on top of each other."""
    project = factories.new_project("liver", "vessel")
    task = factories.new_task(factories.new_series(factories.new_study(project)))
    for label in project.labels.all():
        factories.accept_mask(task, MASK, index=0, label=label)
    return project


def run(project, target, *options, user=None):
    """The command's exit status."""
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    name = (user or factories.lead_of(project)).username
    given = [str(project), "--to", str(target), "--as", name, "--format", *options]
    return commands.run(parser.parse_args(given))


def test_the_zip_is_written(project, tmp_path, capsys):
    target = tmp_path / "masks.zip"
    assert run(project, target, "png") == 0
    with ZipFile(target) as archive:
        assert "manifest.json" in archive.namelist()
    assert "1 series" in capsys.readouterr().out


def test_a_refusal_is_printed_and_nothing_written(project, tmp_path, capsys):
    target = tmp_path / "masks.zip"
    assert run(project, target, "nifti_label_map") == 1
    assert "[labels_overlap]" in capsys.readouterr().out
    assert not target.exists()


def test_what_stands_in_the_way_is_said_before_anything_is_done(project, tmp_path):
    there = tmp_path / "there.zip"
    there.write_bytes(b"dear to somebody")
    with pytest.raises(Conflict, match="there already"):
        run(project, there, "png")
    assert there.read_bytes() == b"dear to somebody"
    with pytest.raises(NotFound, match="0 projects"):
        run("Spleens", tmp_path / "a.zip", "png", user=factories.lead_of(project))
    reviewer = factories.new_member(project, Role.REVIEWER)
    with pytest.raises(NotAllowed):
        run(project, tmp_path / "a.zip", "png", user=reviewer)
    assert project.exports.count() == 0
