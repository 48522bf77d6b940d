"""The main job, whole: a zip becomes reviewed masks that are exported, in a real browser.

On the way the server's worker, the model's process and the web process are killed; nothing that was
acknowledged is lost, and the story is finished. At the end what was exported is compared with what
was accepted, voxel for voxel and in its place in space. Then a folder of several patients comes in,
with a name in the pixels of one: nobody sees it before a lead has blacked it out, nor after.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from delineate.demo import data as demo
from mlworker.contract import masks
from mlworker.contract.masks import RunLengths
from tests.e2e.story import keep_pictures, play
from tests.system import Started, free_port, up
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
FRONTEND = REPOSITORY / "frontend"
GE_CT = Path("data/dicom/series/neurolabusc+dcm_qa_ct/In/GE")
SHIPPED = REPOSITORY / "mlworker/recipes/default.safetensors"
KEPT_PICTURES = (
    "studies",
    "workspace",
    "models",
    "uploads",
    "quarantine",
    "black-out",
    "subjects",
    "privacy",
    "tokens",
)
# Which process is killed where.
KILLED_AT = {
    "upload acknowledged": "server",
    "before a click without a worker": "interactive",
    "before a stroke without a server": "web",
}


@dataclass(frozen=True)
class Original:
    """A slice as it was uploaded."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]


async def test_a_zip_becomes_reviewed_and_exported_masks(folder: Path, chromium: str) -> None:
    files = _series(folder)
    zipped = _zip(files, to=folder / "series.zip")
    ward = _ward(folder / "ward")
    with up(folder, port=free_port(), pages=FRONTEND / "dist") as system:
        await system.until_ready()
        people = _people(system)
        added = system.delineate(
            "model", "add", str(SHIPPED), "--name", "Delineate's default model"
        )
        assert added.returncode == 0, added.stderr

        told = {
            "url": system.url,
            "browser": chromium,
            "zip": str(zipped),
            "ward": str(ward),
            "written": {
                "box": demo.ULTRASOUND_TEXT_BOX,
                "rows": demo.ULTRASOUND_ROWS,
                "columns": demo.ULTRASOUND_COLUMNS,
                "frames": demo.ULTRASOUND_FRAMES,
                "structure": (225, 200),
            },
            "folder": str(folder),
            "people": people,
        }
        pauses = {at: partial(_kill, system, name) for at, name in KILLED_AT.items()}
        await play("story.mjs", told, folder=folder, pauses=pauses)

        accepted = _accepted_masks(system, **people["lead"])
        originals = _in_order(files)
        assert len(accepted) == 3
        assert {label for _, label in accepted} == {"brain", "skull"}
        assert all(mask.any() for mask in accepted.values())
        _check_nifti(folder / "nifti.zip", accepted, originals)
        _check_png(folder / "png.zip", accepted)
        _check_dicom_seg(folder / "dicom_seg.zip", accepted, originals)
    _check_black(folder / "black-box.png")
    keep_pictures(folder / "shots", KEPT_PICTURES)


async def _kill(system: Started, name: str) -> None:
    victim = system.children()[name]
    victim.kill()
    await until(lambda: not victim.is_running() or victim.status() == "zombie")


def _people(system: Started) -> dict[str, dict[str, str]]:
    return {
        "lead": system.add_user("lena"),
        "annotator": system.add_user("anna"),
        "reviewer": system.add_user("rita"),
        "administrator": system.add_user("ada", "--superuser"),
    }


def _series(folder: Path) -> list[Path]:
    """The GE CT of the shared data, else one made of pydicom's own CT."""
    shared = Path(os.environ.get("DELINEATE_SHARED", REPOSITORY.parent / "shared")) / GE_CT
    if shared.is_dir():
        return sorted(path for path in shared.iterdir() if path.is_file())
    files = []
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    for number in range(20):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        for keyword, uid in uids.items():
            setattr(dataset, keyword, uid)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = number + 1
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 5 * number]
        files.append(folder / f"{number}.dcm")
        dataset.save_as(files[-1])
    return files


def _zip(files: list[Path], *, to: Path) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(files):
            archive.write(path, f"series/{number}")
    return to


def _ward(folder: Path) -> Path:
    """What lies about on a ward: CT of one patient, a film of another, a picture, and a letter."""
    (folder / "phantom").mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(demo.phantom_zip())) as phantom:
        for name in phantom.namelist()[18:21]:
            (folder / "phantom" / Path(name).name).write_bytes(phantom.read(name))
    (folder / "sonia").mkdir()
    (folder / "sonia" / "film.dcm").write_bytes(demo.ultrasound_file())
    picture = Image.new("L", (320, 240), 90)
    ImageDraw.Draw(picture).text((10, 10), "SAMPLE^OTTO", fill=255, font=ImageFont.load_default(24))
    picture.save(folder / "screen.png")
    (folder / "letter.txt").write_text("Dear colleague, thank you for sending Mr Sample to us.")
    return folder


def _in_order(files: list[Path]) -> list[Original]:
    """The slices along their normal."""
    slices = []
    for path in files:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        slices.append(
            Original(
                position=tuple(map(float, header.ImagePositionPatient)),
                orientation=tuple(map(float, header.ImageOrientationPatient)),
                spacing=tuple(map(float, header.PixelSpacing)),
            )
        )
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    return sorted(slices, key=lambda each: float(normal @ np.array(each.position)))


Accepted = dict[tuple[int, str], npt.NDArray[np.bool_]]  # by slice index and label


def _accepted_masks(system: Started, *, username: str, password: str) -> Accepted:
    with system.signed_in(username=username, password=password) as client:
        (project,) = client.get("/api/projects").json()
        tasks = client.get(f"/api/projects/{project['id']}/tasks").json()
        (summary,) = (task for task in tasks if task["state"] == "accepted")
        task = client.get(f"/api/tasks/{summary['id']}").json()
    index = {each["id"]: each["index"] for each in task["series"]["slices"]}
    names = {each["id"]: each["name"] for each in task["labels"]}
    return {
        (index[revision["slice_id"]], names[revision["label_id"]]): masks.decode(
            RunLengths.model_validate(revision["mask"])
        )
        for revision in task["revisions"]
    }


def _members(path: Path, suffix: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(suffix)}


def _check_nifti(path: Path, accepted: Accepted, originals: list[Original]) -> None:
    volumes = _members(path, ".nii.gz")
    ((place, provenance),) = _members(path, "provenance.json").items()
    files = json.loads(provenance)["files"]
    assert {f"{Path(place).parent}/{entry['name']}" for entry in files} == volumes.keys()
    found: Accepted = {}
    for entry in files:
        # A series of two spacings comes in two parts, each with the numbers of its slices.
        (label,) = (each for each in ("brain", "skull") if each in entry["name"])
        data = volumes[f"{Path(place).parent}/{entry['name']}"]
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
        voxels = np.asanyarray(image.dataobj)  # (columns, rows, slices)
        assert voxels.shape[2] == len(entry["slices"])
        for layer, number in enumerate(entry["slices"]):
            found[number - 1, label] = voxels[:, :, layer].T > 0
            for column, row in ((0, 0), (voxels.shape[0] - 1, 0), (3, voxels.shape[1] - 1)):
                ras = image.affine @ (column, row, layer, 1)
                expected = _point(originals[number - 1], column, row)
                assert np.allclose(ras[:3] * (-1, -1, 1), expected, atol=0.06)
    assert len(found) == 2 * len(originals)
    assert {key for key, mask in found.items() if mask.any()} == accepted.keys()
    assert all(np.array_equal(found[key], mask) for key, mask in accepted.items())


def _check_png(path: Path, accepted: Accepted) -> None:
    pictures = _members(path, ".png")
    assert len(pictures) == len(accepted)
    found = sorted(
        (np.asarray(Image.open(io.BytesIO(data))) > 0).tobytes() for data in pictures.values()
    )
    assert found == sorted(mask.tobytes() for mask in accepted.values())


def _check_dicom_seg(path: Path, accepted: Accepted, originals: list[Original]) -> None:
    ((_, data),) = _members(path, ".dcm").items()
    dataset = pydicom.dcmread(io.BytesIO(data))
    labels = {item.SegmentNumber: str(item.SegmentLabel) for item in dataset.SegmentSequence}
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    found: Accepted = {}
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        (index,) = [
            number
            for number, original in enumerate(originals)
            if np.allclose(np.array(position, dtype=float), original.position, atol=0.01)
        ]
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[index, labels[segment]] = frame > 0
    assert {key for key, mask in found.items() if mask.any()} == accepted.keys()
    assert all(np.array_equal(found[key], mask) for key, mask in accepted.items())


def _check_black(path: Path) -> None:
    """A picture of the screen where the name stood."""
    with Image.open(path) as picture:
        seen = np.asarray(picture.convert("L"))
    assert seen.size > 1000
    assert seen.max() < 3


def _point(original: Original, column: int, row: int) -> npt.NDArray[np.float64]:
    """Patient coordinates of a pixel's centre (PS3.3 C.7.6.2.1.1)."""
    along_row, along_column = np.reshape(original.orientation, (2, 3))
    between_rows, between_columns = original.spacing
    return np.asarray(
        np.array(original.position)
        + column * between_columns * along_row
        + row * between_rows * along_column
    )
