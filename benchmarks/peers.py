"""Delineate beside Orthanc on one machine: receiving by C-STORE and STOW-RS, and giving frames.

    DELINEATE_DICOM_PORT=11112 DELINEATE_DICOM_CALLERS=PEERS=Peers:peers delineate up
    python -P benchmarks/peers.py --url http://127.0.0.1:8700 --var var --dicom-port 11112

The two take turns, round after round, because machines are noisy. Both get the same bytes from the
same sender. Orthanc is Debian's, with its own defaults, in a folder and on ports of its own; for it
and for the sender TCP_NODELAY is set, without which dcmtk takes 40 ms for an image. A round of
sending ends when the last image is in the list that people see. It makes the account and the
project "Peers" where there are none, and leaves them with what was sent. Prints a table in
Markdown, the median of the rounds. With ``--ct`` a folder's series is sent, and told when its first
slice can be seen and when all are prepared. With ``--pid`` 10,000 images more are sent, and the
memory of Delineate's processes is told on the way.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.robots import command_line, signed_in
from delineate.supervision.ports import reserve

ROUNDS = 5
BY_DIMSE = 200  # images of 512² in an association: a CT
BY_STOW = 50  # images of 128² in a request …
REQUESTS = 8  # … and requests, one after the other, in a round
FRAMES = 40  # of 512² × 16 bit, in a round
MANY = 10_000  # images of 128², to see whether memory grows with them
UNCOMPRESSED = 'multipart/related; type="application/octet-stream"'
AS_VIEWERS_ASK = "multipart/related; type=application/octet-stream; transfer-syntax=*"
USERNAME, PROJECT, AE_TITLE = "peers", "Peers", "PEERS"
BOUNDARY = "peers"
AT_ONCE = {**os.environ, "TCP_NODELAY": "1"}
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Peer:
    """One of the two."""

    name: str
    dicom: tuple[str, str]  # called AE title, port
    dicomweb: httpx.Client
    count: Callable[[], int]  # images in its list
    prepared: Callable[[], int] = lambda: 0  # those with an embedding


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8700")
    parser.add_argument("--var", type=Path, default=Path("var"))
    parser.add_argument("--dicom-port", type=int, default=11112)
    parser.add_argument("--ct", type=Path, help="a folder with a series that is not there yet")
    parser.add_argument("--pid", type=int, help="of `delineate up`: its memory is measured, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="delineate-peers-") as made:
        folder = Path(made)
        ours = delineate(arguments.url, arguments.var, arguments.dicom_port)
        with orthanc(folder) as theirs:
            measure(ours, theirs, folder)
    if arguments.ct is not None:
        measure_ct(ours, sorted(path for path in arguments.ct.rglob("*") if path.is_file()))
    if arguments.pid is not None:
        measure_memory(ours, arguments.pid)


def measure(ours: Peer, theirs: Peer, folder: Path) -> None:
    """All rounds of everything."""
    print("| | Delineate | Orthanc | ratio |\n|---|---|---|---|")
    sent, seen = _times(2), _times(2)
    for number in range(ROUNDS):
        files = _write(folder / f"dimse-{number}", _study(BY_DIMSE, side=512))
        for place, peer in enumerate((ours, theirs)):
            acknowledged_s, visible_s = _send_by_dimse(peer, files)
            sent[place].append(BY_DIMSE / acknowledged_s)
            seen[place].append(BY_DIMSE / visible_s)
    _line(f"C-STORE, {BY_DIMSE} images of 512², acknowledged per second", sent)
    _line("the same, until all are listed", seen)

    sent, seen = _times(2), _times(2)
    for _ in range(ROUNDS):
        bodies = [_multipart(_study(BY_STOW, side=128)) for _ in range(REQUESTS)]
        for place, peer in enumerate((ours, theirs)):
            acknowledged_s, visible_s = _send_by_stow(peer, bodies)
            sent[place].append(REQUESTS * BY_STOW / acknowledged_s)
            seen[place].append(REQUESTS * BY_STOW / visible_s)
    _line(f"STOW-RS, {BY_STOW} images of 128² in a request, acknowledged per second", sent)
    _line("the same, until all are listed", seen)

    addresses = [_frame_of_512(peer) for peer in (ours, theirs)]
    for name, accept in (("uncompressed", UNCOMPRESSED), ("as viewers ask", AS_VIEWERS_ASK)):
        taken = _times(2)
        for _ in range(ROUNDS):
            for place, peer in enumerate((ours, theirs)):
                times = [_fetch_s(peer, addresses[place], accept=accept) for _ in range(FRAMES)]
                taken[place].append(statistics.median(times) * 1e3)
        _line(f"WADO-RS, a frame of 512² × 16 bit {name}, p50 in ms", taken)


def measure_ct(ours: Peer, files: list[Path]) -> None:
    """A series on its way from its sender to whoever annotates it."""
    _until(lambda: ours.prepared() == ours.count())
    before, prepared = ours.count(), ours.prepared()
    body = _multipart([path.read_bytes() for path in files])
    began = time.perf_counter()
    _post(ours, body)
    _until(lambda: ours.count() > before)
    address = _frame_of_512(ours)
    _fetch_s(ours, address, accept=AS_VIEWERS_ASK)
    seen_s = time.perf_counter() - began
    _until(lambda: ours.prepared() > prepared)
    first_s = time.perf_counter() - began
    _until(lambda: ours.prepared() == ours.count())
    all_s = time.perf_counter() - began
    print(f"\n{ours.count() - before} slices: the first seen after {seen_s:.2f} s, prepared after ")
    print(f"{first_s:.2f} s; all prepared after {all_s:.2f} s")


def measure_memory(ours: Peer, pid: int) -> None:
    """What Delineate holds, a process and all that it started, as more and more comes in."""
    print("\n| images sent by STOW-RS | proportional set size of all processes, MiB |\n|---|---|")
    supervisor = psutil.Process(pid)
    for sent in range(0, MANY + 1, MANY // 5):
        if sent:
            bodies = [_multipart(_study(BY_STOW, side=128)) for _ in range(MANY // 5 // BY_STOW)]
            _send_by_stow(ours, bodies)
        print(f"| {sent} | {_held_by(supervisor) / 1024**2:.0f} |", flush=True)


def delineate(url: str, var: Path, dicom_port: int) -> Peer:
    """The running Delineate, with an account, a token and a project for this."""
    password = secrets.token_urlsafe(12)
    browser = signed_in(url, var, username=USERNAME, password=password, timeout_s=PATIENCE_S)
    token = command_line(var, "user", "token", USERNAME, "--name", "peers").split()[-1]
    named = {each["name"]: each["id"] for each in browser.get("/api/projects").json()}
    project = (
        named.get(PROJECT) or browser.post("/api/projects", json={"name": PROJECT}).json()["id"]
    )

    def progress(what: str) -> int:
        return int(browser.get(f"/api/projects/{project}/progress").json()[what])

    dicomweb = httpx.Client(
        base_url=f"{url}/dicomweb/{project}", auth=(USERNAME, token), timeout=PATIENCE_S
    )
    return Peer(
        "Delineate",
        ("DELINEATE", str(dicom_port)),
        dicomweb,
        count=lambda: progress("slices"),
        prepared=lambda: progress("prepared_slices"),
    )


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """An Orthanc of Debian's, with its defaults."""
    with reserve() as one, reserve() as other:
        http_port, dicom_port = one.getsockname()[1], other.getsockname()[1]
    config = {
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["/usr/sbin/Orthanc", str(folder / "orthanc.json")],
        env=AT_ONCE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{http_port}"
    pages = httpx.Client(base_url=url, timeout=PATIENCE_S)
    try:
        _until(lambda: _answers(pages))
        dicomweb = httpx.Client(base_url=f"{url}/dicom-web", timeout=PATIENCE_S)
        yield Peer(
            "Orthanc",
            ("ORTHANC", str(dicom_port)),
            dicomweb,
            lambda: int(pages.get("/statistics").json()["CountInstances"]),
        )
    finally:
        process.terminate()
        process.wait()


def _send_by_dimse(peer: Peer, files: Path) -> tuple[float, float]:
    called, port = peer.dicom
    to = ["--aetitle", AE_TITLE, "--call", called, "127.0.0.1", port]

    def send() -> None:
        subprocess.run(["storescu", *to, "--scan-directories", str(files)], env=AT_ONCE, check=True)

    return _timed(peer, send, count=BY_DIMSE)


def _send_by_stow(peer: Peer, bodies: list[bytes]) -> tuple[float, float]:
    def send() -> None:
        for body in bodies:
            _post(peer, body)

    return _timed(peer, send, count=len(bodies) * BY_STOW)


def _post(peer: Peer, body: bytes) -> None:
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    answer = peer.dicomweb.post(
        "/studies",
        content=body,
        headers={"Content-Type": kind, "Accept": "application/dicom+json"},
    )
    answer.raise_for_status()


def _timed(peer: Peer, send: Callable[[], None], *, count: int) -> tuple[float, float]:
    """Seconds until all is acknowledged, and until all is listed."""
    wanted = peer.count() + count
    began = time.perf_counter()
    send()
    acknowledged_s = time.perf_counter() - began
    _until(lambda: peer.count() >= wanted)
    return acknowledged_s, time.perf_counter() - began


def _frame_of_512(peer: Peer) -> str:
    """Where a frame is, of an image that was sent by C-STORE."""
    found = peer.dicomweb.get(
        "/instances",
        params={"limit": "200", "includefield": "00280010"},
        headers={"Accept": "application/dicom+json"},
    )
    uids = next(each for each in found.json() if each["00280010"]["Value"] == [512])
    study, series, sop = (uids[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    return f"/studies/{study}/series/{series}/instances/{sop}/frames/1"


def _fetch_s(peer: Peer, address: str, *, accept: str) -> float:
    began = time.perf_counter()
    answer = peer.dicomweb.get(address, headers={"Accept": accept, "Accept-Encoding": "identity"})
    taken_s = time.perf_counter() - began
    assert answer.is_success, answer.text
    assert accept != UNCOMPRESSED or len(answer.content) > 512 * 512 * 2
    return taken_s


def _held_by(process: psutil.Process) -> int:
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += int(each.memory_full_info().pss)
    return total


def _study(count: int, *, side: int) -> list[bytes]:
    """Files of a CT of noise, a new one each time."""
    study, series, generator = generate_uid(), generate_uid(), np.random.default_rng()
    files = []
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.PatientID, dataset.PatientName, dataset.StudyID = "PEERS", "Peers", "1"
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, number + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, 2.0 * number]
        dataset.PixelSpacing = [0.7, 0.7]
        dataset.FrameOfReferenceUID = f"{study}.1"[:64]
        dataset.Rows = dataset.Columns = side
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        pixels = generator.integers(-1000, 1000, (side, side), dtype=np.int16)
        dataset.PixelData = pixels.tobytes()
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def _write(folder: Path, files: list[bytes]) -> Path:
    folder.mkdir()
    for number, file in enumerate(files):
        (folder / f"{number:04}.dcm").write_bytes(file)
    return folder


def _multipart(files: list[bytes]) -> bytes:
    part = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(part + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()


def _line(what: str, values: list[list[float]]) -> None:
    ours, theirs = (statistics.median(each) for each in values)
    print(f"| {what} | {ours:.3g} | {theirs:.3g} | {ours / theirs:.2f} |", flush=True)


def _times(count: int) -> list[list[float]]:
    return [[] for _ in range(count)]


def _answers(pages: httpx.Client) -> bool:
    try:
        return pages.get("/system").is_success
    except httpx.TransportError:
        return False


def _until(claim: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
