"""A whole Delineate that receives DICOM, an Orthanc with a series to send, and who may send where.

Each sender has a project of its own, named for it. The programs are Debian's: dcmtk, orthanc,
orthanc-dicomweb and dicom3tools. Which of them is missing is said; with CI=true that is a failure.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from tests.system import Started, blank_pages, free_port, up
from tests.waiting import wait_until

GE_CT = Path("data/dicom/series/neurolabusc+dcm_qa_ct/In/GE")
LEAD = "lena"
# Calling AE titles, and the projects that what they send goes into.
CALLERS = {"STORESCU": "storescu", "DCMSEND": "dcmsend", "ORTHANC": "Orthanc by C-STORE"}
BY_STOW = ("dicomweb-client", "Orthanc by STOW-RS")
DICOMWEB_PLUGIN = "libOrthancDicomWeb.so"


@dataclass(frozen=True)
class Stored:
    """A series as Delineate has it, in order along its normal."""

    pixels: list[npt.NDArray[Any]]
    positions: list[list[float]]
    orientation: list[float]
    spacing: list[float]


@dataclass
class Platform:
    """A running Delineate and its lead's browser."""

    system: Started
    dicom_port: int
    browser: httpx.Client
    projects: dict[str, str]  # ids by name

    def uploads(self, project: str) -> list[dict[str, Any]]:
        """The uploads of a project."""
        answer = self.browser.get(f"/api/projects/{self.projects[project]}/uploads")
        answer.raise_for_status()
        return list(answer.json())

    def wait_until_ingested(self, project: str, *, files: int) -> None:
        """Wait until so many files of the project have met their fate."""

        def are_settled() -> bool:
            uploads = self.uploads(project)
            assert not [each for each in uploads if each["state"] == "failed"]
            return sum(sum(each["fates"].values()) for each in uploads) == files

        wait_until(are_settled)

    def fates(self, project: str) -> dict[str, int]:
        """How many files have met which fate."""
        totals: dict[str, int] = {}
        for upload in self.uploads(project):
            for fate, count in upload["fates"].items():
                totals[fate] = totals.get(fate, 0) + count
        return totals

    def series(self, project: str) -> Stored:
        """The only series of a project, from what the viewer gets."""
        (study,) = self.browser.get(f"/api/projects/{self.projects[project]}/studies").json()
        (series,) = study["series"]
        opened = self.browser.post(f"/api/series/{series['id']}/task")
        opened.raise_for_status()
        told = self.browser.get(f"/api/tasks/{opened.json()['id']}").json()["series"]
        return _stored(self.browser, self.projects[project], told)

    def token(self) -> str:
        """The secret of an API token of the lead's."""
        made = self.system.delineate("user", "token", LEAD, "--name", "interop")
        assert made.returncode == 0, made.stderr
        return made.stdout.split()[-1]


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc that holds the series."""

    client: httpx.Client
    study: str  # its id there


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """Where a program is; a skip, or a failure, that says what to install."""

    def find(name: str, *, package: str) -> str:
        found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
        return found or _is_missing(name, package=package)

    return find


@pytest.fixture(scope="session")
def originals(shared_folder: Path) -> list[Path]:
    """The files of the GE CT."""
    return sorted(path for path in (shared_folder / GE_CT).iterdir() if path.is_file())


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """An empty folder that the databases' user may pass through."""
    made = Path(tempfile.mkdtemp(prefix="delineate-interop-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def platform(folder: Path) -> Iterator[Platform]:
    """Started, with a project for every sender."""
    dicom_port, password = free_port(), secrets.token_urlsafe(12)
    told = {
        "DELINEATE_DICOM_PORT": str(dicom_port),
        "DELINEATE_DICOM_CALLERS": ",".join(
            f"{title}={project}:{LEAD}" for title, project in CALLERS.items()
        ),
    }
    with up(folder, port=free_port(), pages=blank_pages(folder), told=told) as system:
        wait_until(lambda: _is_ready(system), patience_s=180)
        added = system.delineate("user", "add", "--password-stdin", LEAD, stdin=f"{password}\n")
        assert added.returncode == 0, added.stderr
        with closing(_signed_in(system, password)) as browser:
            projects = {
                name: _make_project(browser, name) for name in (*CALLERS.values(), *BY_STOW)
            }
            yield Platform(system, dicom_port, browser, projects)


@pytest.fixture(scope="session")
def orthanc(
    folder: Path,
    platform: Platform,
    originals: list[Path],
    program: Callable[..., str],
) -> Iterator[Orthanc]:
    """Started, knowing Delineate both ways, and holding the series."""
    binary = program("Orthanc", package="orthanc")
    plugins = list(Path("/usr/share/orthanc/plugins").glob(DICOMWEB_PLUGIN))
    if not plugins:
        _is_missing(DICOMWEB_PLUGIN, package="orthanc-dicomweb")
    http_port = free_port()
    database = str(folder / "orthanc")
    peer = f"{platform.system.url}/dicomweb/{platform.projects['Orthanc by STOW-RS']}/"
    config = {
        "StorageDirectory": database,
        "IndexDirectory": database,
        "HttpPort": http_port,
        "DicomPort": free_port(),
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {"delineate": ["DELINEATE", "127.0.0.1", platform.dicom_port]},
        "Plugins": [str(plugins[0])],
        "DicomWeb": {
            "Enable": True,
            "Servers": {"delineate": {"Url": peer, "Username": LEAD, "Password": platform.token()}},
        },
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as client:
            wait_until(lambda: _answers(client, process, folder / "orthanc.log"))
            sent = [client.post("/instances", content=path.read_bytes()) for path in originals]
            assert {answer.status_code for answer in sent} == {200}
            yield Orthanc(client, sent[0].json()["ParentStudy"])
    finally:
        process.terminate()
        process.wait()


def check_unharmed(stored: Stored, originals: list[Path]) -> None:
    """As many slices, the same pixels, at the same places."""
    datasets = [pydicom.dcmread(path) for path in originals]
    normal = np.cross(*np.reshape(stored.orientation, (2, 3)))
    datasets.sort(key=lambda each: float(normal @ np.asarray(each.ImagePositionPatient, float)))
    assert len(stored.pixels) == len(datasets)
    for pixels, position, dataset in zip(stored.pixels, stored.positions, datasets, strict=True):
        np.testing.assert_array_equal(pixels, dataset.pixel_array)
        np.testing.assert_allclose(position, np.asarray(dataset.ImagePositionPatient, float))
    np.testing.assert_allclose(
        stored.orientation, np.asarray(datasets[0].ImageOrientationPatient, float)
    )
    np.testing.assert_allclose(stored.spacing, np.asarray(datasets[0].PixelSpacing, float))


def _stored(browser: httpx.Client, project: str, series: dict[str, Any]) -> Stored:
    root = f"/dicomweb/{project}/studies/{series['study_uid']}/series/{series['series_uid']}"
    headers = {
        each["00080018"]["Value"][0]: _header(each)
        for each in browser.get(f"{root}/metadata").json()
    }
    ordered = [headers[each["sop_instance_uid"]] for each in series["slices"]]
    first = ordered[0]
    return Stored(
        pixels=[_frame(browser, root, header) for header in ordered],
        positions=[[float(x) for x in header.ImagePositionPatient] for header in ordered],
        orientation=[float(x) for x in first.ImageOrientationPatient],
        spacing=[float(x) for x in first.PixelSpacing],
    )


def _header(described: dict[str, Any]) -> pydicom.Dataset:
    """An instance's header; of its pixels it says only where they are."""
    return pydicom.Dataset.from_json(described, bulk_data_uri_handler=lambda *_: b"")


def _frame(browser: httpx.Client, root: str, header: pydicom.Dataset) -> npt.NDArray[Any]:
    answer = browser.get(
        f"{root}/instances/{header.SOPInstanceUID}/frames/1",
        headers={"Accept": 'multipart/related; type="application/octet-stream"'},
    )
    answer.raise_for_status()
    boundary = answer.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
    _, _, rest = answer.content.partition(b"\r\n\r\n")
    pixels = rest[: rest.rindex(b"\r\n--" + boundary)]
    kind = np.dtype("<i2" if header.PixelRepresentation else "<u2")
    return np.frombuffer(pixels, kind).reshape(header.Rows, header.Columns)


def _is_ready(system: Started) -> bool:
    assert system.process.poll() is None, system.output.read_text()
    return "Delineate is ready" in system.output.read_text()


def _signed_in(system: Started, password: str) -> httpx.Client:
    browser = httpx.Client(base_url=system.url, headers={"Origin": system.url}, timeout=60)
    browser.get("/api/session")
    signed_in = browser.post(
        "/api/session",
        json={"username": LEAD, "password": password},
        headers={"X-CSRFToken": browser.cookies["csrftoken"]},
    )
    signed_in.raise_for_status()
    browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]
    return browser


def _make_project(browser: httpx.Client, name: str) -> str:
    made = browser.post("/api/projects", json={"name": name})
    made.raise_for_status()
    return str(made.json()["id"])


def _answers(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return client.get("/system").is_success
    except httpx.TransportError:
        return False


def _is_missing(name: str, *, package: str) -> NoReturn:
    sentence = f"There is no {name}: install it (apt-get install {package})."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)
