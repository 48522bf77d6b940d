"""From images and label maps to SAM-Med2D's data: one binary mask per class and component.

The paper's rules (arXiv 2308.16184, section 3.1): intensities scaled to 0-255 per volume, volumes
cut along all three axes, slices whose short edge is under half the long edge dropped, one mask per
class and connected component, masks under 0.153 % of the image dropped (100 px of 256 x 256). What
is dropped is listed with its reason. A subject belongs to one split, or nothing is written.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel
import nrrd
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from mlworker.training.samples import SAMPLES_CSV, DataError, Sample, write_samples

SMALLEST_SHARE: Final = 100 / 256**2  # of the image's area
SHORTEST_EDGE: Final = 0.5  # of the long edge
COLUMNS: Final = (
    "set",
    "modality",
    "image",
    "mask",
    "mask_encoding",
    "labels",
    "group",
    "split",
)
VOLUMES: Final = (".nii", ".nii.gz", ".nrrd")

Array = npt.NDArray[Any]
Named = dict[str, list[npt.NDArray[np.bool_]]]  # instances by label


@dataclass(frozen=True)
class Dropped:
    """Something that was left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Curation:
    """What was kept, by split, and what was dropped."""

    kept: dict[str, list[Sample]]
    dropped: list[Dropped]


def curate(
    pairs: Path,
    to: Path,
    *,
    slices_per_axis: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Curation:
    """Write the data that a CSV of image and label-map pairs describes into the folder ``to``.

    Its columns: set, modality, image, mask (file names relative to the CSV), mask_encoding
    ("binary >127", "instance ids", "label 1", or "labels" for a label map), labels (names separated
    by |, of the values present in rising order), group (the subject), split (train, val, test).
    ``slices_per_axis`` keeps so many of a volume's slices, evenly spaced, along each axis.
    Raises DataError.
    """
    rows = _read_pairs(pairs)
    _refuse_split_subjects(rows)
    (to / "images").mkdir(parents=True, exist_ok=True)
    (to / "masks").mkdir(exist_ok=True)
    kept: dict[str, list[Sample]] = defaultdict(list)
    dropped: list[Dropped] = []
    for number, row in enumerate(rows, start=1):
        try:
            image, instances = _read_pair(pairs.parent, row)
        except (
            OSError,
            ValueError,
            nrrd.NRRDError,
            nibabel.filebasedimages.ImageFileError,
        ) as error:
            dropped.append(Dropped(row["image"], f"unreadable: {error}"))
            continue
        name = _name_of(row)
        for suffix, pixels, cut in _slices(image, instances, most=slices_per_axis):
            stem = f"{name}{suffix}"
            if min(pixels.shape[:2]) < SHORTEST_EDGE * max(pixels.shape[:2]):
                dropped.append(Dropped(stem, "short edge under half the long edge"))
                continue
            masks = list(_masks(cut, stem=stem, dropped=dropped))
            if not masks:
                dropped.append(Dropped(stem, "no mask is left"))
                continue
            path = to / "images" / f"{stem}.png"
            Image.fromarray(pixels).save(path)
            for mask_name, label, mask in masks:
                mask_path = to / "masks" / f"{mask_name}.png"
                Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)
                kept[row["split"]].append(
                    Sample(
                        image=path,
                        mask=mask_path,
                        label=label,
                        modality=row["modality"],
                        collection=row["set"],
                        subject=row["group"],
                    )
                )
        progress(number, len(rows))
    curation = Curation(dict(kept), dropped)
    _write_lists(curation, to)
    return curation


def _read_pairs(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path} lists nothing")
    if missing := set(COLUMNS) - rows[0].keys():
        raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    return rows


def _refuse_split_subjects(rows: list[dict[str, str]]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row["group"]].add(row["split"])
    if leaks := sorted(group for group, of in splits.items() if len(of) > 1):
        raise DataError(f"{len(leaks)} groups are in more than one split: {', '.join(leaks[:5])}")


def _read_pair(root: Path, row: dict[str, str]) -> tuple[Array, Named]:
    """The image as uint8, (rows, columns[, 3]) or a volume of three axes, and its instances."""
    image, labels = _read(root / row["image"]), _read(root / row["mask"])
    if labels.ndim == 3 and labels.shape[2] in (3, 4) and image.shape[:2] == labels.shape[:2]:
        labels = labels[..., :3].max(axis=2)  # a mask that was saved as a colour picture
    is_volume = row["image"].endswith(VOLUMES)
    if labels.shape != (image.shape if is_volume else image.shape[:2]):
        raise DataError(f"its mask has the shape {labels.shape}, the image {image.shape}")
    if image.dtype != np.uint8:
        image = _to_bytes(image)
    return image, _instances(labels, encoding=row["mask_encoding"], names=row["labels"])


def _read(path: Path) -> Array:
    name = path.name
    if name.endswith((".nii", ".nii.gz")):
        return np.asanyarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    if name.endswith(".nrrd"):
        return np.asarray(nrrd.read(str(path))[0])
    with Image.open(path) as picture:
        known = picture.mode in ("L", "I", "I;16", "P", "RGB", "1")
        return np.asarray(picture if known else picture.convert("RGB"))


def _to_bytes(values: Array) -> npt.NDArray[np.uint8]:
    """Scaled by the volume's 0.5-99.5 percentiles, which one bright voxel does not move."""
    values = np.nan_to_num(values.astype(np.float32))
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = (np.clip(values, low, high) - low) * (255 / max(high - low, 1e-6))
    return np.asarray(scaled, np.uint8)


def _instances(labels: Array, *, encoding: str, names: str) -> Named:
    """By label: for a class its one region, for instance ids a region each."""
    listed = [name for name in names.split("|") if name]
    if found := re.search(r">\s*(\d+)", encoding):
        return {(listed or ["structure"])[0]: [labels > int(found.group(1))]}
    if found := re.search(r"label (\d+)", encoding):
        return {(listed or ["structure"])[0]: [labels == int(found.group(1))]}
    values = [int(value) for value in np.unique(labels) if value != 0]
    if "instance" in encoding:
        return {(listed or ["object"])[0]: [labels == value for value in values]}
    if len(listed) != len(values):
        base = listed[0] if len(listed) == 1 else "structure"
        listed = [f"{base}_{value}" for value in values]
    return {name: [labels == value] for name, value in zip(listed, values, strict=True)}


def _slices(
    image: Array, instances: Named, *, most: int | None
) -> Iterator[tuple[str, Array, Named]]:
    """A picture as it is; a volume along each axis, only where there is something to delineate."""
    if image.ndim == 2 or image.shape[2] == 3:
        yield "", image, instances
        return
    anything = np.any([mask for masks in instances.values() for mask in masks], axis=0)
    for axis, letter in enumerate("xyz"):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(anything.any(axis=others))
        if most is not None and found.size > most:
            found = found[np.linspace(0, found.size - 1, most).round().astype(int)]
        for index in found:
            # Turned so that a volume's second axis points down.
            yield (
                f"_{letter}_{index:03d}",
                np.ascontiguousarray(image.take(index, axis).T),
                {
                    name: [np.ascontiguousarray(mask.take(index, axis).T) for mask in masks]
                    for name, masks in instances.items()
                },
            )


def _masks(
    instances: Named, *, stem: str, dropped: list[Dropped]
) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """(file name, label, mask) of each connected component that is large enough."""
    for label, masks in instances.items():
        safe = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_").lower()
        number = 0
        for mask in masks:
            components, count = ndimage.label(mask, structure=np.ones((3, 3)))
            for value in range(1, count + 1):
                component = components == value
                name = f"{stem}_{safe}_{number:03d}"
                number += 1
                if component.sum() < SMALLEST_SHARE * component.size:
                    dropped.append(Dropped(name, "mask under 0.153 % of the image"))
                else:
                    yield name, safe, component


def _name_of(row: dict[str, str]) -> str:
    name = Path(row["image"]).name.split(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{row['set']}_{name}")


def _write_lists(curation: Curation, to: Path) -> None:
    def relative(path: Path) -> str:
        return path.relative_to(to).as_posix()

    write_samples(to / SAMPLES_CSV, [s for samples in curation.kept.values() for s in samples])
    for split, samples in curation.kept.items():
        image2label: dict[str, list[str]] = defaultdict(list)
        for sample in samples:
            image2label[relative(sample.image)].append(relative(sample.mask))
        label2image = {relative(sample.mask): relative(sample.image) for sample in samples}
        for name, content in (("image2label", image2label), ("label2image", label2image)):
            (to / f"{name}_{split}.json").write_text(json.dumps(content, indent=1))
    with (to / "dropped.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "reason"])
        writer.writerows((each.what, each.reason) for each in curation.dropped)


def summary(curation: Curation) -> str:
    """What was kept and dropped, in a few lines."""
    lines = []
    for split, samples in sorted(curation.kept.items()):
        images = len({sample.image for sample in samples})
        subjects = len({sample.subject for sample in samples})
        lines.append(f"{split}: {len(samples)} masks on {images} images of {subjects} subjects")
        for (collection, modality), count in sorted(
            Counter((sample.collection, sample.modality) for sample in samples).items()
        ):
            lines.append(f"  {collection} ({modality}): {count}")
    reasons = Counter(each.reason.split(":")[0] for each in curation.dropped)
    lines += [f"dropped, {reason}: {count}" for reason, count in sorted(reasons.items())]
    return "\n".join(lines)
