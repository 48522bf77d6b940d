"""Which DICOM files go in, whether with the pixels that pydicom reads, and which are refused.

    python -m benchmarks.conformance FOLDER

Every file in the folder is read as an upload's is. Images that go in are compared, frame by frame,
with what pydicom's own functions make of them: decoded, rescaled or looked up, colour in eight
bits. Prints tables in Markdown: by transfer syntax, what is kept as a reference, and what is
refused by its code. Ends with status 1 when an image that pydicom decodes was refused, or its
pixels differ.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import UID

from delineate.studies import pixels
from delineate.studies.archive import Refused
from delineate.studies.kinds import Fate
from delineate.studies.reference_pixels import kept_pixels

# Refusals that say that a file is no image to delineate, not that it cannot be read.
OTHER_THINGS = {"unsupported_kind", "no_pixels", "directory", "not_dicom"}


def main() -> int:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    warnings.simplefilter("ignore")
    logging.disable()
    equal: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            dataset = pixels.parse(path.read_bytes())
            kind = pixels.check_kind(dataset)
            if kind.fate is Fate.REFERENCE:
                kept_pixels(dataset, kind)
                beside[kind.name] += 1
                continue
            frames = list(pixels.frames(dataset))
        except Refused as reason:
            refused[reason.code, reason.message] += 1
            if reason.code not in OTHER_THINGS and as_pydicom_shows(path) is not None:
                wrong.append(f"{path}: {reason.code}, but pydicom decodes it")
            continue
        expected = as_pydicom_shows(path)
        if expected is None or not np.array_equal(shown(frames, dataset), expected.squeeze()):
            wrong.append(f"{path}: other pixels than pydicom's")
        equal[UID(dataset.file_meta.TransferSyntaxUID).name] += 1
    print(table(("transfer syntax", "files with equal pixels"), equal.most_common()))
    print(table(("kept as a reference", "files"), beside.most_common()))
    totals = [("in", equal.total()), ("beside", beside.total()), ("refused", refused.total())]
    print(table(("all", ""), totals))
    rows = [(f"`{code}`", message, count) for (code, message), count in refused.most_common()]
    print(table(("refused", "because", "files"), rows))
    print("\n".join(wrong), file=sys.stderr)
    return int(bool(wrong))


def shown(frames: list[pixels.Frame], dataset: pydicom.Dataset) -> npt.NDArray[Any]:
    """Frames as they are kept, rescaled where pydicom knows of a rescale."""
    values = np.stack([frame.stored for frame in frames]).squeeze()
    if "RescaleSlope" not in dataset or frames[0].stored.ndim == 3:
        return values
    return values * frames[0].values.slope + frames[0].values.intercept


def as_pydicom_shows(path: Path) -> npt.NDArray[Any] | None:
    """What pydicom makes of a file's pixels, None where it cannot decode them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _as_pydicom_shows(path)
        except Exception:  # whatever its decoders raise
            return None


def _as_pydicom_shows(path: Path) -> npt.NDArray[Any]:
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    values = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        bits = dataset.RedPaletteColorLookupTableDescriptor[2]
        return np.asarray(apply_color_lut(values, dataset)[..., :3] // 2 ** (bits - 8), np.uint8)
    if dataset.SamplesPerPixel == 3:
        return np.asarray(values // 2 ** (dataset.BitsStored - 8))
    # A slope of zero would make every pixel equal: a broken header, not a mapping.
    if "ModalityLUTSequence" not in dataset and dataset.get("RescaleSlope") == 0:
        return values
    return np.asarray(apply_modality_lut(values, dataset))


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
