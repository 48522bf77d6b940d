"""References built in memory: a segmentation of images, doses, contours, maps and whole slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import highdicom as hd
import numpy as np
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from tests.delineate.factories import CT, new_uid
from tests.delineate.studies.files import image

SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
DOSE: Final = "1.2.840.10008.5.1.4.1.1.481.2"
STRUCTURES: Final = "1.2.840.10008.5.1.4.1.1.481.3"
PARAMETRIC_MAP: Final = "1.2.840.10008.5.1.4.1.1.30"
WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
STUDY: Final = "1.2.3"
ALGORITHM: Final = "A program"


def images(count: int = 3) -> list[Dataset]:
    """A CT series that references are of."""
    files = [image(z=2.0 * number, seed=number, study=STUDY) for number in range(count)]
    for number, file in enumerate(files):
        file.InstanceNumber, file.SliceThickness = number + 1, 2
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"):
            setattr(file, keyword, "")
        for keyword in ("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"):
            setattr(file, keyword, "")
    return files


def segmentation(of: Sequence[Dataset], *, label: str = "the liver", seed: int = 0) -> Dataset:
    """A binary segmentation of two segments, as highdicom writes it."""
    shape = (len(of), of[0].Rows, of[0].Columns, 2)
    masks = np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    masks[:, 0, 0] = True  # a frame of nothing would be left out
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"{label} {number}",
            segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=CodedConcept("10200004", "SCT", label),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            tracking_id=label,
            tracking_uid=new_uid(),
        )
        for number in (1, 2)
    ]
    return hd.seg.Segmentation(
        source_images=list(of),
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=new_uid(),
        series_number=7,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer=label,
        manufacturer_model_name=label,
        software_versions=label,
        device_serial_number=label,
        content_description=label,
        content_creator_name=f"{label}^",
    )


def dose(*, seed: int = 0, **more: Any) -> Dataset:
    """An RT dose of two frames."""
    values = np.random.default_rng(seed).integers(0, 2**16, (2, 8, 10), dtype=np.uint16)
    made = image(pixels=values, study=STUDY, series="1.2.3.50", SOPClassUID=DOSE, Modality="RTDOSE")
    made.DoseUnits, made.DoseType, made.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    made.DoseGridScaling = 0.001
    made.GridFrameOffsetVector = [0, 2.5]
    made.DoseComment = "for Mrs Kowalska"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def structures(
    of: Sequence[Dataset], *, name: str = "her liver", sop: str | None = None, shift: float = 0
) -> Dataset:
    """An RT structure set of one contour on the first image."""
    made = image(study=STUDY, series="1.2.3.60", sop=sop, SOPClassUID=STRUCTURES)
    made.Modality = "RTSTRUCT"
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(made, keyword)
    made.StructureSetLabel = made.StructureSetName = name
    roi, outlined, contour, on = Dataset(), Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = 1, name, "MANUAL"
    roi.ReferencedFrameOfReferenceUID = of[0].FrameOfReferenceUID
    on.ReferencedSOPClassUID, on.ReferencedSOPInstanceUID = CT, of[0].SOPInstanceUID
    contour.ContourImageSequence = Items([on])
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 3
    contour.ContourData = [shift, 0, 0, 4.5, 0, 0, 4.5, 3.25, 0]
    outlined.ReferencedROINumber, outlined.ROIDisplayColor = 1, [255, 0, 0]
    outlined.ContourSequence = Items([contour])
    made.StructureSetROISequence, made.ROIContourSequence = Items([roi]), Items([outlined])
    return made


def parametric_map() -> Dataset:
    """A map of floating-point values, and what they mean."""
    values = np.linspace(-1, 1, 80, dtype=np.float32).reshape(8, 10)
    made = image(study=STUDY, series="1.2.3.70", SOPClassUID=PARAMETRIC_MAP, Modality="MR")
    del made.PixelData
    made.BitsAllocated = 32
    made.FloatPixelData = values.tobytes()
    mapping, units = Dataset(), Dataset()
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = "mm2/s", "UCUM", "of Anna"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 1e-6, 0.0
    mapping.DoubleFloatRealWorldValueFirstValueMapped = -1.0
    mapping.DoubleFloatRealWorldValueLastValueMapped = 1.0
    mapping.LUTExplanation = "of Anna"
    mapping.MeasurementUnitsCodeSequence = Items([units])
    made.RealWorldValueMappingSequence = Items([mapping])
    return made


def whole_slide(*, kind: str = "VOLUME", **more: Any) -> Dataset:
    """A level of a slide: two tiles in colour."""
    tiles = np.random.default_rng(4).integers(0, 255, (2, 8, 10, 3), dtype=np.uint8)
    made = image(pixels=tiles[0], photometric="RGB", study=STUDY, series="1.2.3.80")
    made.SOPClassUID, made.Modality = WHOLE_SLIDE, "SM"
    made.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    made.NumberOfFrames, made.PixelData = 2, tiles.tobytes()
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = 20, 8
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made
