"""DICOM Segmentation objects (BINARY), one segment per label, frames without foreground left out.

A series of single-frame objects gives one object; each multi-frame object of a series gives one of
its own, as the standard wants it; slices at the same place (phases, repetitions) are spread over
several. Where slices have no place in the patient there is one object per slice, tied to its image
by reference alone.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Final

import highdicom
import numpy as np
import numpy.typing as npt
from highdicom._standard_utils import is_attribute_in_iod
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import DS

from delineate.exports.delineation import Delineation, File, Label, Patient, Slice

# Far from what scanners give: viewers list delineations after the images.
SERIES_NUMBER_OFFSET: Final = 1000
# In one object, over all labels: the library takes four bytes and 25 ns for each.
PIXELS_AT_MOST: Final = 2**28
LONG_STRING: Final = 64
HEIGHT_DECIMALS: Final = 4  # of mm
UTF_8: Final = "ISO_IR 192"


def write_segmentations(delineation: Delineation) -> Iterator[File]:
    """The series' objects, all in one new series."""
    series_uid = str(highdicom.UID())
    for number, slices in enumerate(_objects(delineation), start=1):
        segmentation = _segmentation(delineation, slices, series_uid=series_uid, number=number)
        _name_sources(segmentation, slices)
        buffer = io.BytesIO()
        segmentation.save_as(buffer)
        yield File(
            name=f"segmentation-{number:04d}.dcm",
            data=buffer.getvalue(),
            labels=tuple(label.value for label in delineation.labels),
            slices=tuple(each.number for each in slices),
        )


def _objects(delineation: Delineation) -> list[tuple[Slice, ...]]:
    """The slices of each object to write: those with a mask, in the order of their sources."""
    accepted = {each.slice_number for each in delineation.masks}
    slices = [each for each in delineation.slices if each.number in accepted]
    if not delineation.has_place:
        return [(each,) for each in slices]
    by_source: dict[str, list[Slice]] = defaultdict(list)
    for each in slices:
        by_source[each.sop_instance_uid if _is_multiframe(each) else ""].append(each)
    per_slice = delineation.rows * delineation.columns * len(delineation.labels)
    at_most = max(1, PIXELS_AT_MOST // per_slice)
    return [
        apart[first : first + at_most]
        for together in by_source.values()
        for apart in _apart(delineation, together)
        for first in range(0, len(apart), at_most)
    ]


def _apart(delineation: Delineation, slices: Sequence[Slice]) -> list[tuple[Slice, ...]]:
    """The slices in as few groups as have no two at the same height along the normal."""
    assert delineation.orientation is not None, "a placed series has an orientation"
    normal = np.cross(delineation.orientation[:3], delineation.orientation[3:])
    groups: list[list[Slice]] = []
    met: Counter[float] = Counter()
    for each in slices:
        height = round(float(normal @ np.array(each.position)), HEIGHT_DECIMALS)
        if met[height] == len(groups):
            groups.append([])
        groups[met[height]].append(each)
        met[height] += 1
    return [tuple(group) for group in groups]


def _segmentation(
    delineation: Delineation, slices: Sequence[Slice], *, series_uid: str, number: int
) -> Segmentation:
    return Segmentation(
        source_images=_sources(delineation, slices),
        pixel_array=_pixels(delineation, slices),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(delineation, label, number=segment)
            for segment, label in enumerate(delineation.labels, start=1)
        ],
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER_OFFSET + delineation.series_number,
        sop_instance_uid=str(highdicom.UID()),
        instance_number=number,
        manufacturer="Delineate",
        manufacturer_model_name="Delineate",
        software_versions=version("delineate"),
        device_serial_number="1",
        content_label="DELINEATION",
        series_description=f"Delineations of series {delineation.series_number}",
        specific_character_set=UTF_8,
    )


def _pixels(delineation: Delineation, slices: Sequence[Slice]) -> npt.NDArray[np.uint8]:
    """(slices, rows, columns, labels), 0 or 1."""
    shape = (len(slices), delineation.rows, delineation.columns, len(delineation.labels))
    pixels = np.zeros(shape, dtype=np.uint8)
    for position, each in enumerate(slices):
        for segment, label in enumerate(delineation.labels):
            if delineation.is_drawn(each.number, label.value):
                pixels[position, :, :, segment] = delineation.mask(each.number, label.value)
    return pixels


def _segment(delineation: Delineation, label: Label, *, number: int) -> SegmentDescription:
    digests = {each.model_digest for each in delineation.masks_of(label.value)} - {""}
    return SegmentDescription(
        segment_number=number,
        segment_label=label.name,
        # Labels carry no code: no more is claimed than that they are of the body.
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC
        if digests
        else SegmentAlgorithmTypeValues.MANUAL,
        algorithm_identification=_algorithm(delineation, digests) if digests else None,
        display_color=CIELabColor.from_string(label.color),
    )


def _algorithm(
    delineation: Delineation, digests: set[str]
) -> highdicom.AlgorithmIdentificationSequence:
    """The model; several ones are told apart in the provenance file."""
    names = sorted({delineation.model_names.get(digest, "unknown model") for digest in digests})
    return highdicom.AlgorithmIdentificationSequence(
        name=", ".join(names)[:LONG_STRING],
        family=codes.cid7162.ArtificialIntelligence,
        version=digests.pop() if len(digests) == 1 else f"{len(digests)} versions",
    )


def _sources(delineation: Delineation, slices: Sequence[Slice]) -> list[Dataset]:
    """What the library needs to know of the images, from what was checked at ingest."""
    if not delineation.has_place:
        return [_source(delineation, slices[0], sop_class_uid=SecondaryCaptureImageStorage)]
    if not _is_multiframe(slices[0]):
        return [_placed_source(delineation, each) for each in slices]
    source = _source(delineation, slices[0], sop_class_uid=slices[0].sop_class_uid)
    source.NumberOfFrames = len(slices)
    source.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_measures(delineation)],
            PlaneOrientationSequence=[_orientation(delineation)],
        )
    ]
    source.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_position(each)]) for each in slices
    ]
    return [source]


def _placed_source(delineation: Delineation, each: Slice) -> Dataset:
    source = _source(delineation, each, sop_class_uid=each.sop_class_uid)
    source.update(_orientation(delineation))
    source.update(_position(each))
    return source


def _source(delineation: Delineation, each: Slice, *, sop_class_uid: str) -> Dataset:
    subject = delineation.subject
    # Of a pseudonym: a family name alone, said to be one.
    patient = delineation.patient or Patient(number=subject, name=f"{subject}^", birth_date="")
    source = _item(
        PatientID=patient.number,
        PatientName=patient.name,
        PatientBirthDate=patient.birth_date,
        PatientSex="",
        AccessionNumber="",
        StudyID="",
        StudyDate="",
        StudyTime="",
        StudyInstanceUID=delineation.study_uid,
        SeriesInstanceUID=delineation.series_uid,
        SOPInstanceUID=each.sop_instance_uid,
        SOPClassUID=sop_class_uid,
        Modality=delineation.modality,
        Rows=delineation.rows,
        Columns=delineation.columns,
    )
    if delineation.has_place:
        # A placed series that names no frame of reference is one of its own.
        source.FrameOfReferenceUID = delineation.frame_of_reference_uid or delineation.series_uid
    if delineation.pixel_spacing_mm is not None:
        source.update(_measures(delineation))
    return source


def _measures(delineation: Delineation) -> Dataset:
    assert delineation.pixel_spacing_mm is not None, "a placed series has spacings"
    thickness = delineation.slice_thickness_mm
    return _item(
        PixelSpacing=[_decimal(each) for each in delineation.pixel_spacing_mm],
        SliceThickness=None if thickness is None else _decimal(thickness),  # empty: unknown
    )


def _orientation(delineation: Delineation) -> Dataset:
    assert delineation.orientation is not None, "a placed series has an orientation"
    return _item(ImageOrientationPatient=[_decimal(each) for each in delineation.orientation])


def _position(each: Slice) -> Dataset:
    assert each.position is not None, "a placed series' slices have positions"
    return _item(ImagePositionPatient=[_decimal(coordinate) for coordinate in each.position])


def _name_sources(segmentation: Dataset, slices: Sequence[Slice]) -> None:
    """Let every reference name the image's kind and frame as they are.

    The library takes no image without a place if its kind should have one, and wants masks for all
    frames of an object: it was told of secondary captures, and of no frames but those written.
    """
    for element in segmentation.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = slices[0].sop_class_uid
    if not _is_multiframe(slices[0]):
        return
    references = {
        id(source): source  # segments share them
        for group in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
    for source in references.values():
        told = int(source.get("ReferencedFrameNumber", 1))
        source.ReferencedFrameNumber = slices[told - 1].frame_number


def _is_multiframe(each: Slice) -> bool:
    """Whether objects of its kind may have several frames: so the library tells, privately."""
    return bool(is_attribute_in_iod("NumberOfFrames", each.sop_class_uid))


def _decimal(value: float) -> object:
    return DS(value, auto_format=True)  # a decimal string holds 16 characters


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
