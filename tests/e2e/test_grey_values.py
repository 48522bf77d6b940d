"""The viewer says of every pixel what the server has, whatever transfer syntax its file came in.

Frames go to the browser as JPEG-LS, and uncompressed where JPEG-LS cannot hold them; there they are
decoded by other code than ours. Compared are modality values (and red, green, blue) over a grid.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tests.system import Started, free_port, up
from tests.waiting import until

FRONTEND = Path(__file__).parents[2] / "frontend"
CONFORMANCE: Final = Path("data/dicom/conformance")
PYDICOM: Final = "pydicom+pydicom/test_files/"
PYDICOM_DATA: Final = "pydicom+pydicom-data/"
PYLIBJPEG: Final = "pydicom+pylibjpeg-data/"
CORNERSTONE: Final = "cornerstonejs+cornerstone3D/"
DICOM_PARSER: Final = "cornerstonejs+dicomParser/encapsulated/multi-frame/"
# Of every transfer syntax some that differ: signed or not, 8 to 16 bits, colour, frames, tables.
FILES: Final = (
    # Implicit and explicit little endian, deflated, big endian.
    f"{CORNERSTONE}CTImage.dcm_LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2.dcm",
    f"{PYDICOM}MR_small.dcm",
    f"{PYDICOM}dicomdirtests/77654033/CR1/6154",  # 16 × 16, MONOCHROME1
    f"{PYDICOM}image_dfl.dcm",
    f"{PYDICOM}MR_small_bigendian.dcm",
    f"{PYDICOM_DATA}SC_rgb_expb_16bit.dcm",
    f"{PYDICOM_DATA}OBXXXX1A_expb.dcm",  # a palette
    # RLE.
    f"{PYDICOM}SC_rgb_rle_32bit.dcm",
    f"{PYDICOM_DATA}emri_small_RLE.dcm",  # enhanced, ten frames
    # JPEG: baseline, extended, lossless, lossless of first order.
    f"{CORNERSTONE}CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
    f"{CORNERSTONE}CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
    f"{PYLIBJPEG}JPEGLossless/JPEGLossless_1s_1f_i_16_16_bad.dcm",  # all of int16
    f"{DICOM_PARSER}CT0012.fragmented_no_bot_jpeg_lossless.57.dcm",
    f"{CORNERSTONE}CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm",
    # JPEG-LS, lossless and not.
    f"{PYDICOM_DATA}JLSL_16_15_1_1F.dcm",
    f"{PYDICOM_DATA}JLSL_RGB_ILV2.dcm",
    f"{PYDICOM}JPEGLSNearLossless_16.dcm",
    f"{PYLIBJPEG}JPEGLS/CT1_JLSN.dcm",
    # JPEG 2000, lossless and not, and HTJ2K.
    f"{PYDICOM}J2K_pixelrep_mismatch.dcm",
    f"{PYLIBJPEG}JPEG2000Lossless/TOSHIBA_J2K_SIZ1_PixRep0.dcm",
    f"{PYLIBJPEG}JPEG2000/OsirixFake16BitsStoredFakeSpacing.dcm",
    f"{PYDICOM_DATA}HTJ2KLossless_08_RGB.dcm",
    f"{PYDICOM_DATA}HTJ2K_08_RGB.dcm",
)
GRID: Final = 5  # points along each side


@dataclass(frozen=True)
class Stored:
    """The first slice of a file, as the server has it."""

    task_id: str
    values: npt.NDArray[np.float64]  # (rows, columns, samples), modality values

    @property
    def points(self) -> list[tuple[int, int]]:
        """A grid with the corners, in (column, row)."""
        rows, columns, _ = self.values.shape
        return [
            (int(x), int(y))
            for y in np.linspace(0, rows - 1, GRID)
            for x in np.linspace(0, columns - 1, GRID)
        ]


async def test_the_viewer_shows_the_values_that_the_server_has(
    folder: Path, chromium: str, shared_folder: Path
) -> None:
    conformance = shared_folder / CONFORMANCE
    if not conformance.is_dir():
        pytest.skip(f"There are no conformance files at {conformance}.")
    with up(folder, port=free_port(), pages=FRONTEND / "dist") as system:
        await system.until_ready()
        person = system.add_user("lena")
        with system.signed_in(**person) as client:
            uploads = [_upload(conformance / name, client=client) for name in FILES]
            stored = [await _stored(upload, client=client) for upload in uploads]

        seen, compressed = _look(system, chromium=chromium, person=person, stored=stored)
    for name, slice_ in zip(FILES, stored, strict=True):
        expected = [slice_.values[y, x] for x, y in slice_.points]
        # The page rounds to two decimals.
        np.testing.assert_allclose(seen[slice_.task_id], expected, atol=0.006, err_msg=name)
    assert compressed


def _upload(path: Path, *, client: httpx.Client) -> dict[str, Any]:
    """Upload a file into a project of its own: several are the same image in other words."""
    # With a label: without one a sentence that asks for it lies over the image.
    new = {"name": path.name, "labels": [{"name": "all", "color": "#2bb8a3"}]}
    project = _json(client.post("/api/projects", json=new))["id"]
    files = {"files": (path.name, path.read_bytes())}
    upload = _json(client.post(f"/api/projects/{project}/uploads", files=files))
    return {"id": upload["id"], "project": project, "name": path.name}


async def _stored(upload: Mapping[str, Any], *, client: httpx.Client) -> Stored:
    """Its first slice, once it has been taken in and let go."""
    where, project = f"/api/uploads/{upload['id']}", upload["project"]
    await until(lambda: _json(client.get(where))["state"] == "done")
    studies = _json(client.get(f"/api/projects/{project}/studies"))
    assert studies, (upload["name"], _json(client.get(where))["report"])
    (series, *_) = studies[0]["series"]
    if series["quarantine"] == "held":
        slices = {"slices": series["slices"]}
        released = client.post(f"/api/series/{series['id']}/release", json=slices)
        assert released.status_code == 204, released.text
    task = _json(client.post(f"/api/series/{series['id']}/task"))["id"]
    detail = _json(client.get(f"/api/tasks/{task}"))["series"]
    first = detail["slices"][0]
    instance = (
        f"/dicomweb/{project}/studies/{detail['study_uid']}/series/{detail['series_uid']}"
        f"/instances/{first['sop_instance_uid']}"
    )
    (header,) = client.get(f"{instance}/metadata").json()
    frame = client.get(
        f"{instance}/frames/{first['frame_number']}",
        headers={"Accept": f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"},
    )
    assert frame.status_code == 200, frame.text
    return Stored(task_id=task, values=_modality_values(frame.content, header))


def _modality_values(content: bytes, header: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """(rows, columns, samples) of a frame in explicit little endian."""
    samples, rows, columns, bits, signed = (
        header[tag]["Value"][0]
        for tag in ("00280002", "00280010", "00280011", "00280100", "00280103")
    )
    stored = np.frombuffer(content, f"<{'i' if signed else 'u'}{bits // 8}")
    stored = stored[: rows * columns * samples].reshape(rows, columns, samples)
    # Of enhanced images in a functional group that all frames share.
    shared = header.get("52009229", {"Value": [{}]})["Value"][0]
    rescale = shared.get("00289145", {"Value": [header]})["Value"][0]
    slope, intercept = (
        float(rescale[tag]["Value"][0]) if tag in rescale else default
        for tag, default in (("00281053", 1.0), ("00281052", 0.0))
    )
    return stored * slope + intercept


def _look(
    system: Started, *, chromium: str, person: dict[str, str], stored: list[Stored]
) -> tuple[dict[str, list[list[float]]], int]:
    """What the viewer says of each task's points; how many frames came as JPEG-LS."""
    told = {
        "url": system.url,
        "browser": chromium,
        "person": person,
        "tasks": [{"id": each.task_id, "points": each.points} for each in stored],
    }
    script = Path(__file__).with_name("grey_values.mjs")
    looked = subprocess.run(
        ["node", str(script), json.dumps(told)], capture_output=True, text=True, check=False
    )
    assert looked.returncode == 0, looked.stderr
    *seen, end = (json.loads(line) for line in looked.stdout.splitlines())
    assert all(line["at"] == "seen" for line in seen), seen
    return {line["id"]: line["values"] for line in seen}, end["compressed"]


def _json(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()
