"""Rules of STYLE.md that a machine can hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("platform", "mlworker", "tests", "benchmarks", "frontend/src", "frontend/e2e")
SUFFIXES = {".py", ".ts", ".tsx", ".mjs", ".css"}

NAMELESS = {"core", "common", "util", "utils", "helper", "helpers", "manager", "managers", "misc"}
# What wants doing later belongs into the tracker, not into the code.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
# The environment is read once, into typed settings, and passed on from there.
MAY_READ_ENVIRONMENT = {
    "platform/delineate/config/env.py",
    "mlworker/app.py",
    "mlworker/training/processes.py",  # what torchrun says
}
# Django's and Celery's entrances must name the settings before they can be read.
NAMES_SETTINGS = re.compile(r'os\.environ\.setdefault\(\s*"DJANGO_SETTINGS_MODULE"')
SERVICES_WRITE = ("views.py", "api.py", "consumers.py")


def _files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "node_modules" not in path.parts:
                yield path


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_code_to_judge() -> None:
    assert sum(1 for _ in _files(*CODE)) > 20


def test_modules_are_named_for_their_subject() -> None:
    named = [
        _name(path)
        for path in _files(*CODE)
        if {path.stem, *path.relative_to(ROOT).parent.parts} & NAMELESS
    ]

    assert named == []


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{_name(path)}:{number}"
        for path in _files(*CODE)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNFINISHED.search(line)
    ]

    assert found == []


def test_the_environment_is_read_in_one_place_on_each_side() -> None:
    found = [
        _name(path)
        for path in _files("platform", "mlworker")
        if path.suffix == ".py"
        and _name(path) not in MAY_READ_ENVIRONMENT
        and re.search(r"os\.(environ|getenv)", NAMES_SETTINGS.sub("", path.read_text()))
    ]

    assert found == []


def test_the_project_speaks_only_of_itself() -> None:
    """Paths of somebody's machine mean nothing to a stranger."""
    elsewhere = re.compile(r"/(work|root|home)/[a-z]")
    texts = [*_files(*CODE), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]

    assert [_name(path) for path in texts if elsewhere.search(path.read_text())] == []


def test_no_boolean_is_positional() -> None:
    """`accept(mask, True)` cannot be read; `accept(mask, reviewed=True)` can."""
    found = [
        f"{_name(path)}:{node.lineno} {node.name}({argument.arg})"
        for path in _files("platform", "mlworker")
        if path.suffix == ".py" and "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in node.args.args
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "bool"
    ]

    assert found == []


def test_no_module_listens_to_model_signals() -> None:
    """Upper apps pull; what follows an act can be read by following calls."""
    found = [
        _name(path)
        for path in _files("platform")
        if path.suffix == ".py" and re.search(r"django\.db\.models\.signals", path.read_text())
    ]

    assert found == []


def test_edges_do_not_write() -> None:
    """Every change is a service; an entrance parses, calls one function and answers."""
    writes = re.compile(r"\.(save|create|bulk_create|get_or_create|update_or_create|delete)\(")
    found = [
        f"{_name(path)}:{number}"
        for path in _files("platform")
        if path.name in SERVICES_WRITE
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if "objects" in line and writes.search(line)
    ]

    assert found == []


def test_the_examples_in_style_exist() -> None:
    text = (ROOT / "STYLE.md").read_text()
    named = re.findall(r"`((?:platform|mlworker|tests|frontend)/[\w./-]*)`", text)

    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(named) > 10
