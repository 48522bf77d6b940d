"""A series that other programs send by STOW-RS arrives unharmed, and so does what they get back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass

from tests.interop.conftest import LEAD, Orthanc, Platform, check_unharmed


def test_dicomweb_client(
    platform: Platform, originals: list[Path], program: Callable[..., str], tmp_path: Path
) -> None:
    client = _client(platform, "dicomweb-client")
    stored = client.store_instances([pydicom.dcmread(path) for path in originals])
    assert len(stored.ReferencedSOPSequence) == len(originals)
    assert "FailedSOPSequence" not in stored
    platform.wait_until_ingested("dicomweb-client", files=len(originals))
    check_unharmed(platform.series("dicomweb-client"), originals)

    (series,) = client.search_for_series()
    uids = (series["0020000D"]["Value"][0], series["0020000E"]["Value"][0])
    instances = client.retrieve_series(*uids)
    assert len(instances) == len(originals)
    _check_by_dciodvfy(program("dciodvfy", package="dicom3tools"), instances[0], tmp_path)


def test_orthanc(platform: Platform, orthanc: Orthanc, originals: list[Path]) -> None:
    sent = orthanc.client.post(
        "/dicom-web/servers/delineate/stow",
        json={"Resources": [orthanc.study], "Synchronous": True},
        timeout=120,
    )
    assert sent.status_code == 200, sent.text
    platform.wait_until_ingested("Orthanc by STOW-RS", files=len(originals))
    check_unharmed(platform.series("Orthanc by STOW-RS"), originals)


def _client(platform: Platform, project: str) -> DICOMwebClient:
    session = create_session_from_user_pass(LEAD, platform.token())
    url = f"{platform.system.url}/dicomweb/{platform.projects[project]}"
    return DICOMwebClient(url, session=session)


def _check_by_dciodvfy(dciodvfy: str, instance: pydicom.Dataset, folder: Path) -> None:
    file = folder / "retrieved.dcm"
    instance.save_as(file, enforce_file_format=True)
    said = subprocess.run([dciodvfy, str(file)], capture_output=True, text=True, check=False)
    assert "CTImage" in said.stdout + said.stderr
    errors = [line for line in said.stderr.splitlines() if line.startswith("Error")]
    assert errors == []
