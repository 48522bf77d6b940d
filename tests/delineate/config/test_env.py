"""Settings of the ways in: what opens a door says who may come in, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from delineate.cli import main
from delineate.config.env import Destination, Machine


def test_every_way_in_is_closed_by_default() -> None:
    machine = Machine()
    assert (machine.dicom_port, dict(machine.dicom_callers), dict(machine.watch)) == (None, {}, {})


def test_callers_are_read_by_name(monkeypatch) -> None:
    monkeypatch.setenv("DELINEATE_DICOM_PORT", "11112")
    monkeypatch.setenv("DELINEATE_DICOM_CALLERS", "CT 1=Livers: second look:anna, PACS=Hearts:bo")
    assert Machine.read().dicom_callers == {
        "CT 1": Destination("Livers: second look", "anna"),
        "PACS": Destination("Hearts", "bo"),
    }


def test_folders_are_read_by_name(monkeypatch) -> None:
    monkeypatch.setenv("DELINEATE_WATCH", "/incoming/ct=Livers:anna,/incoming/mr=Hearts:bo")
    assert Machine.read().watch == {
        Path("/incoming/ct"): Destination("Livers", "anna"),
        Path("/incoming/mr"): Destination("Hearts", "bo"),
    }


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DICOM_PORT", "11112", "must say who may come in"),
        ("DICOM_PORT", "0", "greater than or equal to 1"),
        ("DICOM_AE_TITLE", "SEVENTEEN-LETTERS", "should match pattern"),
        ("DICOM_CALLERS", "CT1=Livers", "is not of the form NAME=Project:username"),
        ("DICOM_CALLERS", "=Livers:anna", "is not of the form"),
        ("DICOM_CALLERS", "CT1=Livers:anna,CT1=Hearts:bo", "CT1 is named twice"),
        ("DICOM_CALLERS", "SEVENTEEN-LETTERS=Livers:anna", "cannot be an AE title"),
        ("WATCH", "incoming=Livers:anna", "incoming must begin with a slash"),
        ("WATCH", "/a=Livers:anna,/a/b=Livers:anna", "/a/b lies in another folder"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch, name, value, sentence) -> None:
    monkeypatch.setenv(f"DELINEATE_{name}", value)
    with pytest.raises(ValidationError, match=sentence):
        Machine.read()


def test_the_console_says_so_in_a_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setenv("DELINEATE_DICOM_PORT", "11112")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert "DELINEATE_DICOM_CALLERS must say who may come in" in said
    assert said.endswith("[settings]\n")
