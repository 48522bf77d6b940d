"""Written files, read back and compared with what was accepted: every voxel, and where it lies.

Nothing here is shared with the writers: NIfTI is read byte by byte where nibabel made its header,
DICOM by pydicom where highdicom wrote it, and places are computed anew from each slice's position.
"""

from __future__ import annotations

import gzip
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom import Dataset

from delineate.errors import DelineateError
from delineate.exports.delineation import Delineation, File, Slice
from mlworker.contract.masks import Mask

Points = npt.NDArray[np.float64]  # (n, 3) patient coordinates in mm

Check = Callable[[File, Delineation], None]

DICOM_WITHIN_MM: Final = 0.01
# Stacks are even within 0.05 mm; positions in headers are rounded.
NIFTI_WITHIN_MM: Final = 0.06


class VerificationFailed(DelineateError):
    """A file does not hold what was accepted: our own mistake, found before anybody else's."""

    code = "verification_failed"


def check_masks(file: File, delineation: Delineation) -> None:
    """A NIfTI of one label: 1 where it is."""
    (label,) = file.labels
    _check_nifti(file, delineation, written_as={label: 1})


def check_label_map(file: File, delineation: Delineation) -> None:
    """A NIfTI of all labels by their values."""
    _check_nifti(file, delineation, written_as={value: value for value in file.labels})


def check_png(file: File, delineation: Delineation) -> None:
    """A PNG of one slice and label: 255 where it is."""
    (label,), (number,) = file.labels, file.slices
    with Image.open(io.BytesIO(file.data)) as image:
        _require(image.mode == "L", file, "is not a grey image")
        values = np.asarray(image)
    _compare(values, delineation.mask(number, label) * np.uint8(255), file, f"slice {number}")


def check_segmentation(file: File, delineation: Delineation) -> None:
    """A DICOM segmentation: its frames by what they refer to, and where they lie."""
    written = pydicom.dcmread(io.BytesIO(file.data))
    names = [str(segment.SegmentLabel) for segment in written.SegmentSequence]
    _require(names == [label.name for label in delineation.labels], file, "names other labels")
    segment_values = {
        int(segment.SegmentNumber): label.value
        for segment, label in zip(written.SegmentSequence, delineation.labels, strict=True)
    }
    by_source = {(each.sop_instance_uid, each.frame_number): each for each in delineation.slices}
    pixels = written.pixel_array.reshape(-1, delineation.rows, delineation.columns)
    _require(len(pixels) == int(written.NumberOfFrames), file, "has frames without pixels")
    shared = written.SharedFunctionalGroupsSequence[0]
    seen: set[tuple[int, int]] = set()
    for frame, own in zip(pixels, written.PerFrameFunctionalGroupsSequence, strict=True):
        groups = [own, shared]
        source = _item(_item(groups, "DerivationImageSequence"), "SourceImageSequence")
        slice_ = by_source.get(
            (str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber", 1)))
        )
        segment = _item(groups, "SegmentIdentificationSequence").ReferencedSegmentNumber
        label = segment_values.get(int(segment))
        if slice_ is None or label is None:
            raise VerificationFailed(f"{file.name} refers to what is not there.", file=file.name)
        mask = delineation.mask(slice_.number, label)
        _compare(frame, mask.astype(np.uint8), file, f"slice {slice_.number}")
        seen.add((slice_.number, label))
        if delineation.has_place:
            written_at = _corners(
                _item(groups, "PlanePositionSequence").ImagePositionPatient,
                orientation=_item(groups, "PlaneOrientationSequence").ImageOrientationPatient,
                spacing_mm=_item(groups, "PixelMeasuresSequence").PixelSpacing,
                shape=frame.shape,
            )
            _compare_places(
                written_at, _place_of(slice_, delineation), file, slice_, within_mm=DICOM_WITHIN_MM
            )
    missing = {
        (number, value)
        for number, value in itertools.product(file.slices, file.labels)
        if delineation.is_drawn(number, value)
    } - seen
    _require(not missing, file, f"lacks frames: {sorted(missing)}")
    if delineation.frame_of_reference_uid and delineation.has_place:
        same = str(written.FrameOfReferenceUID) == delineation.frame_of_reference_uid
        _require(same, file, "lies in another frame of reference")


def check_complete(files: Iterable[File], delineation: Delineation) -> None:
    """Every accepted mask with foreground is in exactly one of the series' files."""
    held = Counter(place for file in files for place in itertools.product(file.slices, file.labels))
    for each in delineation.masks:
        place = (each.slice_number, each.label_value)
        drawn = delineation.is_drawn(*place)
        if held[place] != 1 if drawn else held[place] > 1:
            raise VerificationFailed(
                f"{delineation.title}: slice {place[0]}, label {place[1]} is in {held[place]} of "
                "the written files."
            )


def _check_nifti(file: File, delineation: Delineation, *, written_as: dict[int, int]) -> None:
    slices = [delineation.slices[number - 1] for number in file.slices]
    with gzip.open(io.BytesIO(file.data)) as stream:
        header = stream.read(352)
        sizes = np.frombuffer(header, "<i2", count=8, offset=40)
        shape = (3, delineation.columns, delineation.rows, len(slices))
        _require(tuple(sizes[:4]) == shape, file, f"is of another size: {sizes.tolist()}")
        datatype = int(np.frombuffer(header, "<i2", count=1, offset=70)[0])
        _require(datatype == 2, file, "does not hold unsigned bytes")
        offset = float(np.frombuffer(header, "<f4", count=1, offset=108)[0])
        _require(header[344:348] == b"n+1\0" and offset == len(header), file, "is no NIfTI-1")
        affine = _affine_in(header)
        for position, slice_ in enumerate(slices):
            data = stream.read(delineation.rows * delineation.columns)
            values = np.frombuffer(data, np.uint8).reshape(delineation.rows, delineation.columns)
            expected = np.zeros_like(values)
            for label, written in written_as.items():
                expected[delineation.mask(slice_.number, label)] = written
            _compare(values, expected, file, f"slice {slice_.number}")
            if delineation.has_place:
                _compare_places(
                    _corners_by_affine(affine, values.shape, position),
                    _place_of(slice_, delineation),
                    file,
                    slice_,
                    within_mm=NIFTI_WITHIN_MM,
                )
        _require(stream.read() == b"", file, "is longer than its slices")


def _affine_in(header: bytes) -> npt.NDArray[np.float64]:
    """(3, 4), of a NIfTI-1 header: its sform, or where that says nothing its qform (nifti1.h)."""

    def floats(offset: int, count: int) -> npt.NDArray[np.float64]:
        return np.frombuffer(header, "<f4", count=count, offset=offset).astype(np.float64)

    if int.from_bytes(header[254:256], "little") > 0:
        return floats(280, 12).reshape(3, 4)
    qfac, *sides = floats(76, 4)
    b, c, d = floats(256, 3)
    a = max(0.0, 1 - b * b - c * c - d * d) ** 0.5
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sides[2] *= -1.0 if qfac < 0 else 1.0
    return np.column_stack([turn * sides, floats(268, 3)])


def _place_of(slice_: Slice, delineation: Delineation) -> Points:
    return _corners(
        slice_.position or (),
        orientation=delineation.orientation or (),
        spacing_mm=delineation.pixel_spacing_mm or (),
        shape=(delineation.rows, delineation.columns),
    )


def _corners(
    position: Iterable[float],
    *,
    orientation: Iterable[float],
    spacing_mm: Iterable[float],
    shape: tuple[int, ...],
) -> Points:
    """Where the four corner pixels' centres lie (PS3.3 equation C.7.6.2.1-1)."""
    origin = np.array([float(each) for each in position])
    directions = np.array([float(each) for each in orientation])
    between_rows, between_columns = (float(each) for each in spacing_mm)
    return np.array(
        [
            origin + directions[:3] * between_columns * column + directions[3:] * between_rows * row
            for row, column in itertools.product((0, shape[0] - 1), (0, shape[1] - 1))
        ]
    )


def _corners_by_affine(affine: Points, shape: tuple[int, ...], position: int) -> Points:
    """The same by a NIfTI's affine; its x and y point the other way."""
    indices = [
        (column, row, position, 1)
        for row, column in itertools.product((0, shape[0] - 1), (0, shape[1] - 1))
    ]
    return np.array([affine @ index for index in indices]) * (-1, -1, 1)


def _item(where: Dataset | list[Dataset], keyword: str) -> Dataset:
    """The first item of a sequence, in the first of several places that has it."""
    places = where if isinstance(where, list) else [where]
    item: Dataset = next(place[keyword].value[0] for place in places if keyword in place)
    return item


def _compare(
    values: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8] | Mask, file: File, what: str
) -> None:
    same = values.shape == expected.shape and np.array_equal(values, expected)
    _require(same, file, f"differs from what was accepted on {what}")


def _compare_places(
    written: Points, expected: Points, file: File, slice_: Slice, *, within_mm: float
) -> None:
    off_mm = float(np.abs(written - expected).max())
    sentence = f"puts slice {slice_.number} {off_mm:.3f} mm from its place"
    _require(off_mm <= within_mm, file, sentence)


def _require(claim: object, file: File, otherwise: str) -> None:
    if not claim:
        raise VerificationFailed(f"{file.name} {otherwise}.", file=file.name)
