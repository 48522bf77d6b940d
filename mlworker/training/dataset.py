"""The images and masks of a fine-tuning: listed, checked once, and drawn step by step.

A step's images, masks and changes are a function of the seed, the step and the place in the batch
alone: a run that goes on draws what it would have drawn, and two processes draw together what one
would have drawn with twice the batch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from mlworker.contract.manifest import SHARED_SUBJECT, StoredFile, TrainingManifest
from mlworker.inference.geometry import Frame, Rgb
from mlworker.training.augment import Augmentation, augment
from mlworker.training.pictures import EmptyMask, Mask, read_image, read_mask
from mlworker.training.samples import DataError, Sample, SubjectInTwoSplits, by_image

AUGMENTATION: Final = Augmentation(zoom=(0.8, 1.5), invert=0.0)
_TRIES: Final = 5  # at an augmentation in which no mask leaves the frame
_SHOWN: Final = 5  # names in a sentence that could be endless


class UnusableFiles(DataError):
    """Images or masks that cannot be read, do not fit each other, or are empty; all are named."""


class ChangedFiles(DataError):
    """Files that are not what the manifest says."""


class SingleSample(DataError):
    """A label with one sample, where labels are to come equally often."""


@dataclass(frozen=True)
class DrawnImage:
    """An image (size, size, 3) with its drawn masks (masks, size, size)."""

    image: Rgb
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Survey:
    """What was found in a set: its identity, and what somebody should know of it."""

    digest: str
    images: int
    masks: int
    single_labels: list[str]


class Dataset:
    """Images with their masks, as they are drawn for training."""

    def __init__(
        self, samples: Sequence[Sample], *, frame: Frame, seed: int, augmented: bool, balanced: bool
    ) -> None:
        """Raises SingleSample where a balanced draw would show one mask over and over."""
        if not samples:
            raise DataError("there is nothing to train on")
        self._frame = frame
        self._seed = seed
        self._augmented = augmented
        self._images = list(by_image(samples).values())
        self._balance = _Balance(self._images) if balanced else None
        if balanced and (single := single_labels(samples)):
            raise SingleSample(
                f"labels with one sample cannot come as often as the others: {_some(single)}"
            )

    def __len__(self) -> int:
        return len(self._images)

    def draw(self, *, epoch: int, step: int, place: int, masks: int) -> DrawnImage:
        """The image at ``place`` of the epoch's order, which begins anew where it ends."""
        by = np.random.default_rng((self._seed, 1, step, place))
        if self._balance:
            drawn = self._balance.draw(masks, by=by)
        else:
            order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self._images))
            group = self._images[order[place % len(order)]]
            drawn = [group[i] for i in by.integers(0, len(group), size=masks)]
        return self._read(drawn, by=by)

    def _read(self, drawn: Sequence[Sample], *, by: np.random.Generator) -> DrawnImage:
        image = read_image(
            drawn[0].image, window=drawn[0].window, near=by if self._augmented else None
        )
        distinct = {sample.mask: read_mask(sample.mask, image=image) for sample in drawn}
        if self._augmented:
            for _ in range(_TRIES):
                changed, cut = augment(
                    image,
                    [mask.astype(np.uint8) for mask in distinct.values()],
                    size=self._frame.size,
                    ranges=AUGMENTATION,
                    around=_centre(distinct[drawn[0].mask]),
                    by=by,
                )
                if all(mask.any() for mask in cut):
                    kept = dict(zip(distinct, cut, strict=True))
                    return DrawnImage(changed, np.stack([kept[s.mask] > 0 for s in drawn]))
        small = {path: mask_in_frame(mask, self._frame) for path, mask in distinct.items()}
        return DrawnImage(self._frame.resized(image), np.stack([small[s.mask] for s in drawn]))


def read_manifest(path: Path, *, root: Path) -> tuple[list[Sample], list[Sample]]:
    """The training and the validation samples of a manifest; raises DataError.

    All files must be there, and be what the manifest says.
    """
    try:
        manifest = TrainingManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        leaks = any(each["type"] == SHARED_SUBJECT for each in error.errors())
        refusal = SubjectInTwoSplits if leaks else DataError
        raise refusal(f"{path} is no manifest to train on: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    changed = []
    samples: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    for item in manifest.items:
        files = [item.image, *(mask.file for mask in item.masks)]
        changed += [file.key for file in files if not _is(file, root)]
        samples[item.split] += [
            Sample(
                image=root / item.image.key,
                mask=root / mask.file.key,
                label=mask.label,
                modality=item.modality,
                subject=item.subject,
                window=item.window,
            )
            for mask in item.masks
        ]
    if changed:
        raise ChangedFiles(f"{len(changed)} files are not what {path} says: {_some(changed)}")
    return samples["train"], samples["val"]


def survey(samples: Sequence[Sample], *, frame: Frame) -> Survey:
    """Read everything once; raises UnusableFiles, which names them and says why.

    It costs a few milliseconds a file, before hours of training that would end at the first one.
    """
    problems: list[str] = []
    content = hashlib.sha256()
    for path, group in by_image(samples).items():
        try:
            image = read_image(path, window=group[0].window)
        except DataError as error:
            problems.append(f"{type(error).__name__}: {error}")
            continue
        content.update(_digest(path))
        for sample in group:
            try:
                mask = read_mask(sample.mask, image=image)
                if not mask_in_frame(mask, frame).any():
                    size = f"{frame.size} x {frame.size}"
                    raise EmptyMask(f"{sample.mask} has nothing left at {size} pixels")
            except DataError as error:
                problems.append(f"{type(error).__name__}: {error}")
                continue
            content.update(f"{sample.modality}/{sample.label}/".encode() + _digest(sample.mask))
    if problems:
        raise UnusableFiles(f"{len(problems)} files cannot be used: {_some(problems)}")
    return Survey(
        digest=content.hexdigest(),
        images=len(by_image(samples)),
        masks=len(samples),
        single_labels=single_labels(samples),
    )


def single_labels(samples: Sequence[Sample]) -> list[str]:
    """Labels that only one sample has."""
    counted = Counter(sample.label for sample in samples)
    return sorted(label for label, count in counted.items() if count == 1)


def mask_in_frame(mask: Mask, frame: Frame) -> Mask:
    """(rows, columns) -> (size, size), by the image's own pixels."""
    if frame.preparation == 1:
        three = np.repeat(mask.astype(np.uint8)[:, :, None], 3, axis=2)
        return frame.resized(three)[:, :, 0] > 0
    size = (frame.size, frame.size)
    exact = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(exact) > 0


class _Balance:
    """Draws modalities equally often, and labels equally often within each."""

    def __init__(self, images: Sequence[Sequence[Sample]]) -> None:
        # modality -> label -> images (by number) with masks of that label
        self._images = images
        self._with: dict[str, dict[str, list[int]]] = {}
        for number, group in enumerate(images):
            for label in sorted({sample.label for sample in group}):
                labels = self._with.setdefault(group[0].modality, {})
                labels.setdefault(label, []).append(number)

    def draw(self, masks: int, *, by: np.random.Generator) -> list[Sample]:
        """Masks of one image: the first of the label that is due, the others of any."""
        modality = sorted(self._with)[by.integers(len(self._with))]
        labels = self._with[modality]
        due = sorted(labels)[by.integers(len(labels))]
        group = self._images[labels[due][by.integers(len(labels[due]))]]
        here: dict[str, list[Sample]] = {}
        for sample in group:
            here.setdefault(sample.label, []).append(sample)
        names = sorted(here)
        drawn = [due, *(names[i] for i in by.integers(0, len(names), size=masks - 1))]
        return [here[label][by.integers(len(here[label]))] for label in drawn]


def _centre(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _is(file: StoredFile, root: Path) -> bool:
    path = root / file.key
    return path.is_file() and _digest(path).hex() == file.digest


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return "; ".join(names[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
