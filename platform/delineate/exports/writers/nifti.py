"""NIfTI-1 masks, gzipped: values along columns, rows and slices, placed by an affine.

A NIfTI has one affine: equal steps between slices, in any direction (a tilted gantry shears). A
series whose slices are not equally spaced becomes one file per evenly spaced stack, so that every
voxel stays in its place.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from delineate.exports.delineation import CannotBeWritten, Delineation, File, Slice
from delineate.studies.volumes import NiftiPlace

Affine = npt.NDArray[np.float64]  # (4, 4)

# Headers round; farther from its even place than this a slice begins a stack of its own.
EVEN_WITHIN_MM: Final = 0.05
# Slices nearer than this lie at the same place (repetitions, phases) and cannot be stacked.
SAME_PLACE_MM: Final = 1e-3
TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's axes point right and anterior

SCANNER_ANATOMY: Final = 1  # sform: the patient's coordinates
ALIGNED_TO_ITSELF: Final = 2  # sform: no more than the image's own axes
ORTHOGONAL_WITHIN: Final = 1e-4
DATA_OFFSET: Final = 352  # the header's 348 bytes and 4 that say "no extensions"
GZIP_LEVEL: Final = 6


@dataclass(frozen=True)
class Stack:
    """Evenly spaced slices and the voxel-to-patient affine they share (DICOM's axes)."""

    slices: tuple[Slice, ...]
    affine: Affine


def write_masks(delineation: Delineation) -> Iterator[File]:
    """One file per label and stack: uint8, 1 where the label is; absent slices are background."""
    for label in delineation.labels:
        yield from _write(delineation, label.file_name, {label.value: 1})


def write_label_maps(delineation: Delineation) -> Iterator[File]:
    """One file per stack: uint8 label values; raises CannotBeWritten ``labels_overlap``."""
    _refuse_overlaps(delineation)
    values = {label.value: label.value for label in delineation.labels}
    yield from _write(delineation, "labels", values)


def stacks(delineation: Delineation) -> list[Stack]:
    """The series as evenly spaced stacks; one, unless its slices' distances differ.

    Where the place of slices is unknown, the axes are the image's own, as if axial.
    """
    if delineation.nifti_place is not None:
        in_file = tuple(sorted(delineation.slices, key=lambda each: each.frame_number))
        return [Stack(in_file, _affine(delineation, in_file))]
    if not delineation.has_place:
        return [Stack(delineation.slices, _placeless_affine(delineation))]
    found = []
    first = 0
    while first < len(delineation.slices):
        end = _end_of_even(delineation, first)
        stack = delineation.slices[first:end]
        found.append(Stack(stack, _affine(delineation, stack)))
        first = end
    return found


def _end_of_even(delineation: Delineation, first: int) -> int:
    positions = np.array([each.position for each in delineation.slices], dtype=np.float64)
    normal = _normal(delineation)
    end = first + 1
    while end < len(positions):
        steps = end - first
        step = (positions[end] - positions[first]) / steps
        even = positions[first] + np.outer(np.arange(steps + 1), step)
        off = np.abs(positions[first : end + 1] - even).max()
        if off > EVEN_WITHIN_MM or step @ normal < SAME_PLACE_MM:
            break
        end += 1
    return end


def _affine(delineation: Delineation, stack: tuple[Slice, ...]) -> Affine:
    """Column, row and slice -> patient coordinates (PS3.3 C.7.6.2.1.1)."""
    assert delineation.orientation is not None, "a placed series has an orientation"
    along_row = np.array(delineation.orientation[:3])
    along_column = np.array(delineation.orientation[3:])
    positions = np.array([each.position for each in stack], dtype=np.float64)
    if len(stack) > 1:
        step = (positions[-1] - positions[0]) / (len(stack) - 1)
    else:
        step = _normal(delineation) * (delineation.slice_thickness_mm or 1.0)
    affine = np.eye(4)
    between_rows, between_columns = _spacing_mm(delineation)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return affine


def _placeless_affine(delineation: Delineation) -> Affine:
    between_rows, between_columns = _spacing_mm(delineation)
    return np.diag([between_columns, between_rows, delineation.slice_thickness_mm or 1.0, 1.0])


def _spacing_mm(delineation: Delineation) -> tuple[float, float]:
    return delineation.pixel_spacing_mm or (1.0, 1.0)


def _normal(delineation: Delineation) -> npt.NDArray[np.float64]:
    assert delineation.orientation is not None, "a placed series has an orientation"
    return np.cross(delineation.orientation[:3], delineation.orientation[3:])


def _refuse_overlaps(delineation: Delineation) -> None:
    for each in delineation.slices:
        drawn = {
            label.name: delineation.mask(each.number, label.value)
            for label in delineation.labels
            if delineation.is_drawn(each.number, label.value)
        }
        for (one, mask), (other, other_mask) in combinations(drawn.items(), 2):
            if (mask & other_mask).any():
                raise CannotBeWritten(
                    f"{delineation.title}: {one} and {other} overlap on slice {each.number}, and "
                    "a label map holds one label per pixel. Export one NIfTI per label instead.",
                    code="labels_overlap",
                    study_number=delineation.study_number,
                    series_number=delineation.series_number,
                    slice_number=each.number,
                    labels=[one, other],
                )


def _write(delineation: Delineation, name: str, written_as: Mapping[int, int]) -> Iterator[File]:
    """The labels whose values are ``written_as``'s keys, in one file per stack."""
    parts = stacks(delineation)
    for number, stack in enumerate(parts, start=1):
        part = f".part-{number}" if len(parts) > 1 else ""
        yield File(
            name=f"{name}{part}.nii.gz",
            data=_volume(delineation, stack, written_as),
            labels=tuple(written_as),
            slices=tuple(each.number for each in stack.slices),
        )


def _volume(delineation: Delineation, stack: Stack, written_as: Mapping[int, int]) -> bytes:
    """The file, written slice by slice: a volume of a thousand slices need not fit in memory."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=GZIP_LEVEL) as target:
        _header(delineation, stack).write_to(target)
        for each in stack.slices:
            values = np.zeros((delineation.rows, delineation.columns), dtype=np.uint8)
            for label_value, written in written_as.items():
                values[delineation.mask(each.number, label_value)] = written
            # NIfTI's first axis is the fastest: row after row, as in DICOM.
            target.write(values.tobytes())
    return buffer.getvalue()


def _header(delineation: Delineation, stack: Stack) -> Nifti1Header:
    affine = TO_RAS @ stack.affine
    header = Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["vox_offset"] = DATA_OFFSET
    header["scl_slope"], header["scl_inter"] = 1, 0
    header.set_data_shape((delineation.columns, delineation.rows, len(stack.slices)))
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_xyzt_units("mm")
    if delineation.nifti_place is not None:
        _say_as_it_came(header, delineation.nifti_place)
        return header
    code = SCANNER_ANATOMY if delineation.has_place else ALIGNED_TO_ITSELF
    header.set_sform(affine, code=code)
    # A qform cannot shear: where it would put voxels elsewhere there is none.
    header.set_qform(affine, code=0 if _shears(affine) else code, strip_shears=True)
    return header


def _say_as_it_came(header: Nifti1Header, place: NiftiPlace) -> None:
    """The very numbers of the file that the images came in."""
    header["qform_code"], header["sform_code"] = place.qform_code, place.sform_code
    header["pixdim"][:4] = place.pixdim
    for letter, value in zip("bcd", place.quaternion, strict=True):
        header[f"quatern_{letter}"] = value
    for number, letter in enumerate("xyz"):
        header[f"qoffset_{letter}"] = place.offset[number]
        header[f"srow_{letter}"] = place.srow[4 * number : 4 * number + 4]
    header["xyzt_units"] = place.xyzt_units


def _shears(affine: Affine) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > ORTHOGONAL_WITHIN)
