"""A file that differs in one voxel, or lies a little beside its place, does not pass."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pydicom
import pytest
from PIL import Image

from delineate.exports import verify
from delineate.exports.delineation import AcceptedMask, Delineation, Label, Slice
from delineate.exports.verify import VerificationFailed
from delineate.exports.writers import dicom_seg, nifti, png
from mlworker.contract import masks
from tests.delineate import factories

MASK = np.zeros((8, 10), bool)
MASK[2:5, 3:9] = True


@pytest.fixture
def delineation() -> Delineation:
    """Three slices, one label, a mask on the middle one."""
    return Delineation(
        study_id=uuid4(),
        study_number=1,
        series_number=1,
        study_uid=factories.new_uid(),
        series_uid=factories.new_uid(),
        subject="S-A",
        modality="CT",
        rows=8,
        columns=10,
        pixel_spacing_mm=(0.5, 0.75),
        slice_thickness_mm=None,
        orientation=factories.AXIAL,
        frame_of_reference_uid=factories.new_uid(),
        slices=tuple(
            Slice(n, factories.new_uid(), factories.CT, 1, (0.0, 0.0, 2.0 * n)) for n in (1, 2, 3)
        ),
        labels=(Label(1, "liver", "#aa3311"),),
        masks=(
            AcceptedMask(
                slice_number=2,
                label_value=1,
                runs=masks.encode(MASK),
                revision_id=str(uuid4()),
                revision=1,
                by="anna",
                at=datetime(2026, 1, 1, tzinfo=UTC),
                points=(),
                box=None,
                model_digest="",
                hand_drawn_share=1.0,
                active_seconds=1.0,
            ),
        ),
        review=None,
        model_names={},
    )


def test_a_nifti_with_one_voxel_too_many(delineation):
    (file,) = nifti.write_masks(delineation)
    verify.check_masks(file, delineation)
    data = bytearray(gzip.decompress(file.data))
    data[-1] = 1
    wrong = replace(file, data=gzip.compress(bytes(data)))
    with pytest.raises(VerificationFailed, match="differs from what was accepted on slice 3"):
        verify.check_masks(wrong, delineation)


def test_a_nifti_beside_its_place(delineation):
    (file,) = nifti.write_masks(delineation)
    data = bytearray(gzip.decompress(file.data))
    offset = np.frombuffer(data, "<f4", count=1, offset=280 + 12)
    data[292:296] = (offset + np.float32(0.1)).tobytes()
    wrong = replace(file, data=gzip.compress(bytes(data)))
    with pytest.raises(VerificationFailed, match=r"0\.100 mm from its place"):
        verify.check_masks(wrong, delineation)


@pytest.mark.parametrize(
    ("start", "end", "put"), [(42, 44, b"\x09\0"), (70, 72, b"\x04\0"), (344, 348, b"ni1\0")]
)
def test_a_nifti_of_another_kind(delineation, start, end, put):
    (file,) = nifti.write_masks(delineation)
    data = bytearray(gzip.decompress(file.data))
    data[start:end] = put
    with pytest.raises(VerificationFailed):
        verify.check_masks(replace(file, data=gzip.compress(bytes(data))), delineation)


def test_a_label_map_with_another_value(delineation):
    (file,) = nifti.write_label_maps(delineation)
    verify.check_label_map(file, delineation)
    renamed = replace(
        delineation,
        labels=(Label(2, "liver", "#aa3311"),),
        masks=(replace(delineation.masks[0], label_value=2),),
    )
    with pytest.raises(VerificationFailed, match="slice 2"):
        verify.check_label_map(replace(file, labels=(2,)), renamed)


def test_a_png_that_is_turned(delineation):
    (file,) = png.write_masks(delineation)
    verify.check_png(file, delineation)
    buffer = io.BytesIO()
    Image.fromarray(np.flipud(MASK).astype(np.uint8) * 255).save(buffer, format="PNG")
    with pytest.raises(VerificationFailed, match="slice 2"):
        verify.check_png(replace(file, data=buffer.getvalue()), delineation)


def altered(file, change):
    """The DICOM file after ``change(dataset)``."""
    dataset = pydicom.dcmread(io.BytesIO(file.data))
    change(dataset)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return replace(file, data=buffer.getvalue())


def move(dataset):
    """A frame a millimetre further."""
    position = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    position.ImagePositionPatient = [0, 0, 5]


def flip_a_pixel(dataset):
    """The first pixel drawn."""
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]


def refer_elsewhere(dataset):
    """Another image as the source."""
    groups = dataset.PerFrameFunctionalGroupsSequence[0]
    source = groups.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "1.2.3"


def rename(dataset):
    """Another name of the segment."""
    dataset.SegmentSequence[0].SegmentLabel = "spleen"


def place_elsewhere(dataset):
    """Another patient's coordinates."""
    dataset.FrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (move, r"1\.000 mm from its place"),
        (flip_a_pixel, "differs from what was accepted on slice 2"),
        (refer_elsewhere, "refers to what is not there"),
        (rename, "names other labels"),
        (place_elsewhere, "another frame of reference"),
    ],
)
def test_a_segmentation_that_was_altered(delineation, change, sentence):
    (file,) = dicom_seg.write_segmentations(delineation)
    verify.check_segmentation(file, delineation)
    with pytest.raises(VerificationFailed, match=sentence):
        verify.check_segmentation(altered(file, change), delineation)


def test_a_mask_that_is_in_no_file_or_in_two(delineation):
    (file,) = nifti.write_masks(delineation)
    verify.check_complete([file], delineation)
    for files in ([], [file, file], [replace(file, slices=(1, 3))]):
        with pytest.raises(VerificationFailed, match="slice 2, label 1"):
            verify.check_complete(files, delineation)


def test_a_segmentation_that_lacks_a_frame(delineation):
    (file,) = dicom_seg.write_segmentations(delineation)
    more = replace(delineation.masks[0], slice_number=3)
    wanted = replace(delineation, masks=(*delineation.masks, more))
    with pytest.raises(VerificationFailed, match="lacks frames"):
        verify.check_segmentation(replace(file, slices=(2, 3)), wanted)
