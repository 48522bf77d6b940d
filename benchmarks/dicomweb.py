"""What DICOMweb costs: images in by STOW-RS, a frame out by WADO-RS, and the memory of the server.

    python -m benchmarks.dicomweb http://127.0.0.1:8700/dicomweb/PROJECT --token TOKEN
    python -m benchmarks.dicomweb http://127.0.0.1:8700/dicomweb/PROJECT --user NAME --password WORD
    python -m benchmarks.dicomweb … --peer http://127.0.0.1:8042/dicom-web

The same code measures a Delineate and a peer such as an Orthanc, one after the other: requests of
50 instances of 128 x 128 x 16 bit, a CT series each, sent one after the other, the clock stopped
when QIDO-RS shows the last of them; then the median of 200 requests for a frame of 512 x 512 x 16
bit, as a viewer asks for it. With `--pid` of a server's first process, the largest sum of what it
and its descendants hold (proportional set size) is told, as seen ten times a second. Prints a table
in Markdown. It leaves its images in the project: take one of its own.
"""

from __future__ import annotations

import argparse
import io
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import psutil
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PER_REQUEST: Final = 50
SMALL: Final = 128
LARGE: Final = 512
FRAME_REQUESTS: Final = 200
BOUNDARY: Final = "delineate-benchmark"
AS_VIEWERS_ASK: Final = "multipart/related; type=application/octet-stream; transfer-syntax=*"
UNCOMPRESSED: Final = 'multipart/related; type="application/octet-stream"'
PATIENCE_S: Final = 600.0


@dataclass
class Measured:
    """What one server did."""

    name: str
    instances: int = 0
    seconds: float = 0.0
    frames_ms: dict[str, list[float]] = field(default_factory=dict)
    frame_bytes: dict[str, int] = field(default_factory=dict)
    memory_bytes: int = 0


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="…/dicomweb/PROJECT of a running Delineate")
    parser.add_argument("--token", help="an API token, sent as Bearer")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--pid", type=int, help="the server's first process, on this machine")
    parser.add_argument("--peer", help="DICOMweb's root at another server")
    parser.add_argument("--peer-user")
    parser.add_argument("--peer-password")
    parser.add_argument("--peer-pid", type=int)
    parser.add_argument("--instances", type=int, default=10_000)
    arguments = parser.parse_args()
    results = []
    with _client(arguments.url, arguments.user, arguments.password, token=arguments.token) as ours:
        results.append(_measure("Delineate", ours, arguments.instances, pid=arguments.pid))
    if arguments.peer is not None:
        peer_account = (arguments.peer_user, arguments.peer_password)
        with _client(arguments.peer, *peer_account, token=None) as peer:
            results.append(_measure("peer", peer, arguments.instances, pid=arguments.peer_pid))
    _print(results)


def _client(url: str, user: str | None, password: str | None, *, token: str | None) -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    auth = None if user is None else httpx.BasicAuth(user, password or "")
    return httpx.Client(
        base_url=f"{url.rstrip('/')}/", headers=headers, auth=auth, timeout=PATIENCE_S
    )


def _measure(name: str, client: httpx.Client, count: int, *, pid: int | None) -> Measured:
    measured = Measured(name)
    with _memory_of(pid, measured):
        _store_many(client, count, measured)
    _time_frames(client, measured)
    return measured


def _store_many(client: httpx.Client, count: int, measured: Measured) -> None:
    """Bodies are made before the clock starts: what is measured is the server."""
    bodies = [
        _body(_series(SMALL, PER_REQUEST, seed=seed))
        for seed in range(max(1, count // PER_REQUEST))
    ]
    begun, before = time.perf_counter(), _instances(client)
    for body in bodies:
        _store(client, body)
    measured.instances = len(bodies) * PER_REQUEST
    _wait_for(client, before + measured.instances)
    measured.seconds = time.perf_counter() - begun


def _instances(client: httpx.Client) -> int:
    """How many there are, by what both servers tell of their studies."""
    total = offset = 0
    while True:
        found = _found(client, "studies", includefield="00201208", offset=offset)
        if not found:
            return total
        total += sum(int(each["00201208"]["Value"][0]) for each in found)
        offset += len(found)


def _found(client: httpx.Client, address: str, **parameters: str | int) -> list[dict[str, Any]]:
    answer = client.get(address, params=parameters, headers={"Accept": "application/dicom+json"})
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json() if answer.content else []
    return found


def _wait_for(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (there := _instances(client)) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{there} of {count} instances were found; the rest never came.")
        time.sleep(0.05)


def _store(client: httpx.Client, body: bytes) -> dict[str, Any]:
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    answer = client.post(
        "studies",
        content=body,
        headers={"Content-Type": kind, "Accept": "application/dicom+json"},
    )
    if answer.status_code != 200:
        raise SystemExit(f"Storing was answered {answer.status_code}: {answer.text[:500]}")
    told: dict[str, Any] = answer.json()
    return told


def _time_frames(client: httpx.Client, measured: Measured) -> None:
    before = _instances(client)
    told = _store(client, _body(_series(LARGE, 20, seed=0)))
    _wait_for(client, before + 20)
    addresses = [item["00081190"]["Value"][0] for item in told["00081199"]["Value"]]
    for name, accept in (("as viewers ask", AS_VIEWERS_ASK), ("uncompressed", UNCOMPRESSED)):
        times = []
        for number in range(len(addresses) + FRAME_REQUESTS):
            # By path: a server behind another name tells addresses that are not reached from here.
            path = httpx.URL(addresses[number % len(addresses)]).path
            begun = time.perf_counter()
            answer = client.get(f"{_origin(client)}{path}/frames/1", headers={"Accept": accept})
            times.append(1000 * (time.perf_counter() - begun))
            answer.raise_for_status()
            measured.frame_bytes[name] = len(answer.content)
        measured.frames_ms[name] = times[len(addresses) :]  # the first of each may be made anew


def _origin(client: httpx.Client) -> str:
    return f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"


@contextmanager
def _memory_of(pid: int | None, measured: Measured) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        if pid is None:
            return
        process = psutil.Process(pid)
        while not ended.wait(0.1):
            measured.memory_bytes = max(measured.memory_bytes, _held_by(process))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _held_by(process: psutil.Process) -> int:
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # it has ended meanwhile
    return total


def _series(side: int, count: int, *, seed: int) -> list[bytes]:
    """A CT series of smooth shapes with a scanner's noise, as files."""
    random = np.random.default_rng(seed)
    study, series = generate_uid(), generate_uid()
    y, x = np.mgrid[:side, :side] / side - 0.5
    body = np.where(x**2 + y**2 < 0.16, 1040, 0) + np.where((x - 0.1) ** 2 + y**2 < 0.01, 300, 0)
    files = []
    for number in range(count):
        noise = random.normal(0, 12, (side, side))
        pixels = (body + noise * (body > 0) - 1024).astype(np.int16)
        files.append(_file(pixels, study=study, series=series, number=number))
    return files


def _file(pixels: npt.NDArray[np.int16], *, study: str, series: str, number: int) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientID, dataset.PatientName = study[-16:], "Benchmark^Made"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, number + 1
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, number]
    dataset.PixelSpacing = [0.8, 0.8]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _body(files: list[bytes]) -> bytes:
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file for file in files) + f"\r\n--{BOUNDARY}--\r\n".encode()


def _print(results: list[Measured]) -> None:
    names = [result.name for result in results]
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    rows = {
        f"instances of {SMALL}² stored and found, per second": [
            f"{result.instances / result.seconds:.0f}" for result in results
        ]
    }
    for name in results[0].frames_ms:
        rows[f"a frame of {LARGE}² {name}: median, 95th of 100, ms"] = [
            f"{statistics.median(result.frames_ms[name]):.1f}, "
            f"{statistics.quantiles(result.frames_ms[name], n=20)[-1]:.1f}"
            for result in results
        ]
        rows[f"its bytes {name}"] = [f"{result.frame_bytes[name]:,}" for result in results]
    if any(result.memory_bytes for result in results):
        rows["memory of its processes at most, MiB"] = [
            f"{result.memory_bytes / 2**20:.0f}" for result in results
        ]
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
