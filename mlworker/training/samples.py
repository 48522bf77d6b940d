"""Samples: one binary mask of one image, and the files that list them.

Two lists are read: SAM-Med2D's JSON files (image -> masks for training, mask -> image for testing),
and ``samples.csv``, which `mlworker curate` writes beside them and which also names the subject.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlworker.contract.messages import Window

SAMPLES_CSV: Final = "samples.csv"
UNKNOWN: Final = "unknown"
_COLUMNS: Final = ("image", "mask", "label", "modality", "collection", "subject")


class DataError(ValueError):
    """A list of samples, or a file that it names, cannot be used."""


class SubjectInTwoSplits(DataError):
    """What is learnt would judge itself."""


@dataclass(frozen=True)
class Sample:
    """One binary mask of one image. ``collection`` is the set that it comes from.

    ``window``, in stored values, is what an image deeper than 8 bits is seen through.
    """

    image: Path
    mask: Path
    label: str
    modality: str = UNKNOWN
    collection: str = UNKNOWN
    subject: str = UNKNOWN
    window: Window | None = None


def read_image2label(path: Path, *, root: Path) -> list[Sample]:
    """SAM-Med2D's training list, {image: [mask, ...]}; raises DataError."""
    pairs = []
    for image, masks in json_object(path).items():
        if not isinstance(masks, list) or not all(isinstance(mask, str) for mask in masks):
            raise DataError(f"{path.name}: the masks of {image} are not a list of file names")
        pairs += [(image, mask) for mask in masks]
    return _samples(pairs, path=path, root=root)


def read_label2image(path: Path, *, root: Path) -> list[Sample]:
    """SAM-Med2D's test list, {mask: image}; raises DataError."""
    pairs = []
    for mask, image in json_object(path).items():
        if not isinstance(image, str):
            raise DataError(f"{path.name}: the image of {mask} is not a file name")
        pairs.append((image, mask))
    return _samples(pairs, path=path, root=root)


def read_samples(path: Path) -> list[Sample]:
    """A ``samples.csv``; its file names are relative to its folder. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path} lists nothing")
    if missing := set(_COLUMNS) - rows[0].keys():
        raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    return [
        Sample(
            image=path.parent / row["image"],
            mask=path.parent / row["mask"],
            label=row["label"],
            modality=row["modality"],
            collection=row["collection"],
            subject=row["subject"],
        )
        for row in rows
    ]


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a ``samples.csv``, with file names relative to its folder."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for sample in samples:
            row = {name: getattr(sample, name) for name in _COLUMNS}
            for name in ("image", "mask"):
                row[name] = row[name].relative_to(path.parent).as_posix()
            writer.writerow(row)


def by_image(samples: Iterable[Sample]) -> dict[Path, list[Sample]]:
    """The samples of each image, in the order given: an image is read and encoded once."""
    grouped: dict[Path, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.image, []).append(sample)
    return grouped


def refuse_shared_subjects(training: Sequence[Sample], validation: Sequence[Sample]) -> None:
    """Raise SubjectInTwoSplits when a subject is in both parts."""
    shared = {sample.subject for sample in training} & {sample.subject for sample in validation}
    shared.discard(UNKNOWN)
    if shared:
        some = ", ".join(sorted(shared)[:5])
        raise SubjectInTwoSplits(
            f"{len(shared)} subjects are in training and in validation: {some}"
        )


def json_object(path: Path, *, refusal: type[DataError] = DataError) -> dict[str, Any]:
    """What a JSON file holds; ``refusal`` is raised where that is not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise refusal(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise refusal(f"{path} is not a JSON object")
    return content


def _samples(pairs: list[tuple[str, str]], *, path: Path, root: Path) -> list[Sample]:
    if not pairs:
        raise DataError(f"{path} lists nothing")
    beside = root / SAMPLES_CSV
    known = {sample.mask: sample for sample in read_samples(beside)} if beside.exists() else {}
    return [
        known.get(root / mask)
        or Sample(image=root / image, mask=root / mask, label=_label(image, mask))
        for image, mask in pairs
    ]


def _label(image: str, mask: str) -> str:
    """Of SAM-Med2D's file names: ``<image>_<label>_<number>.png``."""
    name = Path(mask).stem.removeprefix(f"{Path(image).stem}_")
    label, _, number = name.rpartition("_")
    return label if label and number.isdigit() else name
