"""docker-compose.yml against the specification and against what `delineate up` runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from delineate.config.env import Destination, Machine
from delineate.supervision.processes import MIGRATE, processes

ROOT = Path(__file__).parents[1]
SOMEBODY = Destination("Livers", "anna")
# With every way in: those that are off by default have a profile.
ON_A_SERVER = processes(
    Machine(
        dicom_port=11112,
        dicom_callers={"CT1": SOMEBODY},
        watch={Path("/incoming"): SOMEBODY},
    ),
    host="0.0.0.0",
    port=8700,
)
SECRETS = {
    "DELINEATE_SECRET_KEY": "s" * 64,
    "DELINEATE_ORIGINS": "https://delineate.example.org",
    "POSTGRES_PASSWORD": "p",
    "REDIS_PASSWORD": "r",
    "OBJECTS_PASSWORD": "o" * 8,
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as YAML has it, anchors and merges resolved."""
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


@pytest.fixture(scope="module")
def ours(compose: dict[str, Any]) -> dict[str, Any]:
    """The services built from our image."""
    return {name: each for name, each in compose["services"].items() if "build" in each}


def test_it_obeys_the_specification(compose: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "tests" / "compose_spec.json").read_text())

    jsonschema.Draft7Validator(schema).validate(compose)


def test_the_specification_would_catch_a_mistake(compose: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "tests" / "compose_spec.json").read_text())
    wrong = {**compose, "services": {"web": {"imagine": "delineate"}}}

    assert not jsonschema.Draft7Validator(schema).is_valid(wrong)


def test_every_service_of_ours_runs_what_up_runs(ours: dict[str, Any]) -> None:
    up = {process.name: list(process.command) for process in ON_A_SERVER}

    assert {name: each["command"] for name, each in ours.items()} == {**up, "migrate": [*MIGRATE]}


def test_every_process_has_the_threads_that_up_gives_it(ours: dict[str, Any]) -> None:
    for process in ON_A_SERVER:
        told = ours[process.name]["environment"]
        assert {name: told.get(name) for name in process.env} == dict(process.env), process.name


def test_the_image_alone_runs_the_web_process() -> None:
    last = (ROOT / "Dockerfile").read_text().strip().splitlines()[-1]
    web = next(process for process in ON_A_SERVER if process.name == "web")

    assert json.loads(last.removeprefix("CMD ")) == list(web.command)


def test_the_three_workers_reserve_a_gpu_and_nobody_else(ours: dict[str, Any]) -> None:
    reserving = {
        name
        for name, each in ours.items()
        for device in each.get("deploy", {})
        .get("resources", {})
        .get("reservations", {})
        .get("devices", [])
        if "gpu" in device["capabilities"]
    }

    assert reserving == {"interactive", "encode", "train"}


def test_the_workers_know_neither_the_database_nor_the_key(ours: dict[str, Any]) -> None:
    for name in ("interactive", "encode", "train"):
        assert not {"DATABASE_URL", "DELINEATE_SECRET_KEY"} & ours[name]["environment"].keys()


def test_nothing_is_open_to_other_machines(compose: dict[str, Any]) -> None:
    published = [port for each in compose["services"].values() for port in each.get("ports", [])]

    assert published == ["127.0.0.1:8700:8700", "${DELINEATE_DICOM_PUBLISH:-127.0.0.1:11112}:11112"]


def test_what_is_off_by_default_has_a_profile(ours: dict[str, Any]) -> None:
    by_default = {process.name for process in processes(Machine())} | {"migrate"}

    assert {name for name, each in ours.items() if "profiles" not in each} == by_default


def test_composes_own_reading_agrees() -> None:
    command = next(
        (
            candidate
            for candidate in (["docker", "compose"], ["docker-compose"])
            if shutil.which(candidate[0])
            and subprocess.run([*candidate, "version"], capture_output=True, check=False).returncode
            == 0
        ),
        None,
    )
    if command is None:
        pytest.skip("Neither `docker compose` nor `docker-compose` is installed here.")

    read = subprocess.run(
        [*command, "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        env={**SECRETS, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (read.returncode, read.stderr) == (0, "")
