"""A series that other programs send by C-STORE arrives unharmed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.interop.conftest import Orthanc, Platform, check_unharmed

# Without it dcmtk waits for each other's acknowledgement, 40 ms an image.
AT_ONCE = {**os.environ, "TCP_NODELAY": "1"}


def test_storescu(platform: Platform, originals: list[Path], program: Callable[..., str]) -> None:
    storescu = program("storescu", package="dcmtk")
    to = ["--aetitle", "STORESCU", "--call", "DELINEATE", "127.0.0.1", str(platform.dicom_port)]
    subprocess.run([storescu, *to, *map(str, originals)], env=AT_ONCE, check=True)
    platform.wait_until_ingested("storescu", files=len(originals))
    check_unharmed(platform.series("storescu"), originals)


def test_dcmsend_and_again(
    platform: Platform, originals: list[Path], program: Callable[..., str]
) -> None:
    dcmsend = program("dcmsend", package="dcmtk")
    to = ["--aetitle", "DCMSEND", "--call", "DELINEATE", "127.0.0.1", str(platform.dicom_port)]
    for times in (1, 2):
        subprocess.run([dcmsend, *to, *map(str, originals)], env=AT_ONCE, check=True)
        platform.wait_until_ingested("dcmsend", files=times * len(originals))
    assert platform.fates("dcmsend") == {"stored": len(originals), "duplicate": len(originals)}
    check_unharmed(platform.series("dcmsend"), originals)


def test_echoscu(platform: Platform, program: Callable[..., str]) -> None:
    echoscu = program("echoscu", package="dcmtk")
    to = ["--aetitle", "STORESCU", "--call", "DELINEATE", "127.0.0.1", str(platform.dicom_port)]
    subprocess.run([echoscu, *to], check=True)


def test_a_stranger_is_told_that_it_is_not_known(
    platform: Platform, program: Callable[..., str]
) -> None:
    echoscu = program("echoscu", package="dcmtk")
    to = ["--aetitle", "STRANGER", "--call", "DELINEATE", "127.0.0.1", str(platform.dicom_port)]
    said = subprocess.run([echoscu, *to], capture_output=True, text=True, check=False)
    assert said.returncode != 0
    assert "Calling AE Title Not Recognized" in said.stdout + said.stderr


def test_orthanc(platform: Platform, orthanc: Orthanc, originals: list[Path]) -> None:
    assert orthanc.client.post("/modalities/delineate/echo", json={}).is_success
    sent = orthanc.client.post(
        "/modalities/delineate/store",
        json={"Resources": [orthanc.study], "Synchronous": True},
        timeout=120,
    )
    assert (sent.status_code, sent.json()["FailedInstancesCount"]) == (200, 0), sent.text
    platform.wait_until_ingested("Orthanc by C-STORE", files=len(originals))
    check_unharmed(platform.series("Orthanc by C-STORE"), originals)
