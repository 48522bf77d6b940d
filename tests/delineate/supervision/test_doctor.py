"""Doctor sees what is wrong, says what to do, and changes nothing. A running system: test_up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from delineate.cli import main
from delineate.config.env import Machine
from delineate.supervision.doctor import examine
from delineate.supervision.installation import Installation, open_installation
from delineate.supervision.ports import reserve


@pytest.fixture
def installation(folder: Path) -> Installation:
    """One that has been started before: with secrets, pages and data."""
    made = open_installation(folder / "var")
    made.secrets()
    (folder / "pages").mkdir()
    (folder / "pages" / "index.html").touch()
    (made.postgres / "data").mkdir(parents=True)
    (made.postgres / "data" / "PG_VERSION").write_text("18\n")
    return made


def test_a_sound_installation_is_found_sound(installation: Installation) -> None:
    assert _complaints(installation) == []


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda i: shutil.rmtree(i.var.parent / "pages"),
            "The pages have not been built",
        ),
        (
            lambda i: (i.var / "secrets.json").chmod(0o644),
            "secrets.json can be read by others: `chmod 600 ",
        ),
        (
            lambda i: (i.postgres / "data" / "PG_VERSION").write_text("17\n"),
            "was made by PostgreSQL 17",
        ),
    ],
)
def test_what_is_wrong_is_named(
    installation: Installation, spoil: Callable[[Installation], object], complaint: str
) -> None:
    spoil(installation)

    (found,) = _complaints(installation)

    assert complaint in found


def test_a_full_disk_is_named(installation: Installation) -> None:
    (found,) = _complaints(installation, min_free_bytes=10**18)

    assert "MB are free on the disk" in found


def test_a_busy_port_is_named(installation: Installation) -> None:
    with reserve() as held:
        held.listen()
        (found,) = _complaints(installation, port=held.getsockname()[1])

    assert "is in use by" in found


def test_where_there_is_no_installation_it_makes_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--var", str(folder / "var")])

    assert "There is no installation in" in capsys.readouterr().out
    assert not (folder / "var").exists()


def test_the_exit_status_says_whether_all_is_well(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with reserve() as free:
        port = free.getsockname()[1]
    arguments = ["doctor", "--var", str(installation.var), "--port", str(port)]
    monkeypatch.setenv("DELINEATE_FRONTEND", str(installation.var.parent / "pages"))
    monkeypatch.delenv("DATABASE_URL")

    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("All is well.\n")

    (installation.var / "secrets.json").chmod(0o644)

    assert main(arguments) == 1
    assert capsys.readouterr().out.endswith("1 of these need attention.\n")


def _complaints(
    installation: Installation, *, port: int | None = None, min_free_bytes: int = 1
) -> list[str]:
    machine = Machine.model_construct(
        database_url=None,
        frontend=installation.var.parent / "pages",
        min_free_bytes=min_free_bytes,
        port=_free_port(),
    )
    found = examine(installation, machine, port=port)
    return [finding.sentence for finding in found if not finding.well]


def _free_port() -> int:
    with reserve() as held:
        return int(held.getsockname()[1])
