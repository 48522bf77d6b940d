"""What may be kept of a DICOM header: the lists, by the option of PS3.15 that each belongs to.

They are held to the standard's own table (tests/delineate/studies/test_confidentiality_profile.py),
and docs/deidentification.md shows them. Values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class Option(StrEnum):
    """The Basic Profile and its options that are done here: codes of PS3.16 CID 7050."""

    BASIC_PROFILE = "113100"
    MODIFIED_DATES = "113107"
    PATIENT_CHARACTERISTICS = "113108"
    DEVICE_IDENTITY = "113109"
    SAFE_PRIVATE = "113111"


MEANINGS: Final = {
    Option.BASIC_PROFILE: "Basic Application Confidentiality Profile",
    Option.MODIFIED_DATES: ("Retain Longitudinal Temporal Information Modified Dates Option"),
    Option.PATIENT_CHARACTERISTICS: "Retain Patient Characteristics Option",
    Option.DEVICE_IDENTITY: "Retain Device Identity Option",
    Option.SAFE_PRIVATE: "Retain Safe Private Option",
}

# Attributes whose value is a UID of the patient's data: replaced.
REPLACED_UIDS: Final = frozenset(
    {
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
        "DimensionOrganizationUID",
    }
)

# Attributes in words, and the words that are kept (PS3.3 defined terms, PS3.16 annex L).
WORDS: Final = {
    keyword: frozenset(words.split())
    for keyword, words in {
        "Modality": (
            "CR CT DX ES GM IO IVOCT MG MR NM OCT OP OPT OT PT PX RF RG RTIMAGE SC SM US XA XC"
        ),
        "ImageType": (
            "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER REFORMATTED MPR PROJECTION "
            "VOLUME MIP MINIP AVERAGE RESAMPLED DIXON WATER FAT IN_PHASE OUT_PHASE ADC "
            "DIFFUSION TRACEW FA M FFE SE IR P R I MAGNITUDE PHASE REAL IMAGINARY MOSAIC NORM "
            "DIS2D DIS3D FM ND SUBTRACT PERFUSION T1 T2 T2_STAR PROTON_DENSITY FLUOROSCOPY "
            "ANGIO STATIC DYNAMIC GATED WHOLE BODY TOMO RECON EMISSION TRANSMISSION BIPLANE "
            "SINGLE A B NONE OTHER"
        ),
        "PatientPosition": "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS",
        "BodyPartExamined": (
            "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST "
            "BRONCHUS CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN "
            "CHESTABDPELVIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY CSPINE CTSPINE DUODENUM "
            "EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT FOREARM "
            "GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS ILEUM ILIUM JAW JEJUNUM KIDNEY "
            "KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MANDIBLE MAXILLA MEDIASTINUM NECK "
            "NECKCHEST NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE "
            "RECTUM RIB SCALP SCAPULA SCLERA SCROTUM SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM "
            "STOMACH TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TLSPINE TMJ TOE TONGUE "
            "TRACHEA TSPINE ULNA URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA "
            "PHANTOM"
        ),
        "Laterality": "R L U B",
        "ImageLaterality": "R L U B",
        "ViewPosition": "AP PA LL RL RLD LLD RLO LLO CC MLO ML LM XCCL XCCM ISO",
        "PhotometricInterpretation": (
            "MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_ICT YBR_RCT"
        ),
        "RescaleType": "HU US OD HU_MOD PCT MGML Z_EFF ED EDW STRESS",
        "VOILUTFunction": "LINEAR LINEAR_EXACT SIGMOID",
        "BurnedInAnnotation": "YES NO",
        "RecognizableVisualFeatures": "YES NO",
        "LossyImageCompression": "00 01",
        "Units": (
            "CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS "
            "PROPCPS MLMINML MLML GML STDDEV"
        ),
        "PatientSex": "M F O",
    }.items()
}
# Further words of ImageType, with spaces in them: burned_in.py asks for them.
SCREENS: Final = frozenset({"SCREEN SAVE", "SCREEN CAPTURE", "SCREENSAVE", "SCREENSHOT"})

# Values that are names of makers and of their products, and no others; in the spelling below.
NAMES: Final = {
    keyword: {name.casefold(): name for name in names.split("; ")}
    for keyword, names in {
        "Manufacturer": (
            "Agfa; Agfa-Gevaert AG; Aloka; ALOKA CO., LTD.; Canon; Canon Inc.; "
            "CANON_MEC; Carestream Health; Carl Zeiss Meditec; ESAOTE; FUJI PHOTO FILM CO., LTD.; "
            "FUJIFILM Corporation; GE; GE Healthcare; GE MEDICAL SYSTEMS; G.E. Medical Systems; "
            "Heidelberg Engineering; Hitachi; Hitachi Medical Corporation; HOLOGIC, Inc.; "
            "Hyperfine; KODAK; KONICA MINOLTA; LORAD; Mindray; Philips; Philips Healthcare; "
            "Philips Medical Systems; Philips Medical Systems, Inc.; SAMSUNG MEDISON CO., LTD.; "
            "Shimadzu; SIEMENS; Siemens Healthineers; Siemens HealthCare GmbH; SonoSite, Inc.; "
            "TOPCON; TOSHIBA; TOSHIBA_MEC; UIH; United Imaging; Varian Medical Systems"
        ),
        "ManufacturerModelName": (
            "Achieva; Achieva dStream; Aera; Aquilion; Aquilion ONE; Aquilion PRIME; Avanto; "
            "Avanto_fit; Biograph 40; Biograph 64; Biograph mMR; Biograph128; Biograph64_mCT; "
            "Brilliance 16; Brilliance 40; Brilliance 64; BrightSpeed; Discovery 690; "
            "Discovery CT750 HD; Discovery MR450; Discovery MR750; Discovery MR750w; "
            "Discovery STE; ECHELON; Emotion 16; EPIQ 5; EPIQ 7C; Espree; GEMINI TF; "
            "HiSpeed CT/i; HiSpeed Dual; iCT 128; iCT 256; Ingenia; Ingenia Elition X; Ingenuity; "
            "Intera; IQon - Spectral CT; LightSpeed Plus; LightSpeed Pro 16; LightSpeed QX/i; "
            "LightSpeed Ultra; LightSpeed VCT; LightSpeed16; LOGIQ 700; LOGIQ E9; MAGNETOM Lumina; "
            "MAGNETOM Sola; MAGNETOM Vida; Optima CT660; Optima MR450w; Panorama; Prisma; "
            "Prisma_fit; Revolution CT; Revolution EVO; Sensation 16; Sensation 64; "
            "Selenia Dimensions; Senographe DS; SIGNA Artist; SIGNA EXCITE; SIGNA HDx; "
            "SIGNA HDxt; SIGNA Premier; Signa PET/MR; Skyra; Skyra_fit; SOMATOM Definition; "
            "SOMATOM Definition AS; SOMATOM Definition AS+; SOMATOM Definition Edge; "
            "SOMATOM Definition Flash; SOMATOM Force; SOMATOM go.Top; Sonata; Spectralis; "
            "Symphony; Symphony Tim; Trio; TrioTim; Verio"
        ),
    }.items()
}

# Kept whatever a project's options are: none of it says who somebody is, or when.
ALWAYS_KEPT: Final = (
    REPLACED_UIDS
    | (WORDS.keys() - {"PatientSex"})
    | {
        # What kind of object it is.
        "SOPClassUID",
        "SeriesNumber",
        "InstanceNumber",
        "NumberOfFrames",
        # How its pixels are stored and shown.
        "SamplesPerPixel",
        "PlanarConfiguration",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelAspectRatio",
        "RescaleSlope",
        "RescaleIntercept",
        "WindowCenter",
        "WindowWidth",
        "VOILUTSequence",
        "LUTDescriptor",
        "LUTData",
        # Where it lies.
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PatientOrientation",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "SliceThickness",
        "SpacingBetweenSlices",
        "SliceLocation",
        "GantryDetectorTilt",
        # How it was acquired, in numbers.
        "KVP",
        "EchoTime",
        "RepetitionTime",
        "InversionTime",
        "FlipAngle",
        "MagneticFieldStrength",
        "EchoNumbers",
        "TemporalPositionIdentifier",
        # The same in enhanced multi-frame objects (PS3.3 C.7.6.16): sequences are cleaned inside.
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelMeasuresSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelValueTransformationSequence",
        "FrameVOILUTSequence",
        "FrameContentSequence",
        "DimensionIndexValues",
        "InStackPositionNumber",
        "TemporalPositionIndex",
        "MREchoSequence",
        "EffectiveEchoTime",
        "MRDiffusionSequence",
        "DiffusionBValue",
    }
)

# Kept where a project has the option.
KEPT_BY_OPTION: Final[Mapping[Option, frozenset[str]]] = MappingProxyType(
    {
        Option.MODIFIED_DATES: frozenset(
            {
                "StudyDate",
                "StudyTime",
                "SeriesDate",
                "SeriesTime",
                "AcquisitionDate",
                "AcquisitionTime",
                "AcquisitionDateTime",
                "ContentDate",
                "ContentTime",
                "FrameAcquisitionDateTime",
                "FrameReferenceDateTime",
            }
        ),
        Option.PATIENT_CHARACTERISTICS: frozenset(
            {"PatientSex", "PatientAge", "PatientSize", "PatientWeight"}
        ),
        Option.DEVICE_IDENTITY: frozenset(NAMES),
    }
)

# Of references alone (kinds.py), beside what is always kept: what segments, doses, contours and
# maps mean, where they lie, and which images they are of. No label, no description: names stand
# there.
REFERENCE_UIDS: Final = frozenset({"ReferencedSOPInstanceUID", "ReferencedFrameOfReferenceUID"})
REFERENCE_WORDS: Final = {
    keyword: frozenset(words.split())
    for keyword, words in {
        "Modality": "CT MR NM OT PT RTDOSE RTSTRUCT SEG SM",
        "DimensionOrganizationType": "3D 3D_TEMPORAL TILED_FULL TILED_SPARSE",
        "VolumetricProperties": "VOLUME SAMPLED DISTORTED MIXED",
        "SegmentationType": "BINARY FRACTIONAL LABELMAP",
        "SegmentationFractionalType": "PROBABILITY OCCUPANCY",
        "SegmentsOverlap": "YES NO UNDEFINED",
        "SegmentAlgorithmType": "AUTOMATIC SEMIAUTOMATIC MANUAL",
        "DoseUnits": "GY RELATIVE",
        "DoseType": "PHYSICAL EFFECTIVE ERROR",
        "DoseSummationType": (
            "PLAN MULTI_PLAN PLAN_OVERVIEW FRACTION BEAM BRACHY FRACTION_SESSION BEAM_SESSION "
            "BRACHY_SESSION CONTROL_POINT RECORD"
        ),
        "TissueHeterogeneityCorrection": "IMAGE ROI_OVERRIDE WATER",
        "ROIGenerationAlgorithm": "AUTOMATIC SEMIAUTOMATIC MANUAL",
        "ContourGeometricType": ("POINT OPEN_PLANAR OPEN_NONPLANAR CLOSED_PLANAR CLOSEDPLANAR_XOR"),
        "RTROIInterpretedType": (
            "EXTERNAL PTV CTV GTV TREATED_VOLUME IRRAD_VOLUME OAR BOLUS AVOIDANCE ORGAN MARKER "
            "REGISTRATION ISOCENTER CONTRAST_AGENT CAVITY BRACHY_CHANNEL BRACHY_ACCESSORY "
            "BRACHY_SRC_APP BRACHY_CHNL_SHLD SUPPORT FIXATION DOSE_REGION CONTROL DOSE_MEASUREMENT"
        ),
        "SpecimenLabelInImage": "NO",
    }.items()
}
# Sequences of codes: of known schemes, and by their pattern; their words are the scheme's own.
REFERENCE_CODES: Final = frozenset(
    {
        "SegmentedPropertyCategoryCodeSequence",
        "SegmentedPropertyTypeCodeSequence",
        "SegmentedPropertyTypeModifierCodeSequence",
        "AnatomicRegionSequence",
        "AnatomicRegionModifierSequence",
        "MeasurementUnitsCodeSequence",
    }
)
CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SCT": r"[1-9]\d{5,17}",
        "SRT": r"[A-Z]-[0-9A-F]{4,6}",
        "DCM": r"\d{6}",
        "FMA": r"[1-9]\d{0,6}",
        "UCUM": "",  # only those that PS3.16 has
    }
)
KEPT_OF_REFERENCES: Final = (
    REFERENCE_UIDS
    | (REFERENCE_WORDS.keys() - WORDS.keys())
    | REFERENCE_CODES
    | {
        # Which images it is of.
        "ReferencedSeriesSequence",
        "ReferencedInstanceSequence",
        "ReferencedImageSequence",
        "ReferencedSOPClassUID",
        "ReferencedFrameNumber",
        "DerivationImageSequence",
        "SourceImageSequence",
        "ReferencedFrameOfReferenceSequence",
        "RTReferencedStudySequence",
        "RTReferencedSeriesSequence",
        # By what its frames are told apart.
        "DimensionOrganizationSequence",
        "DimensionIndexSequence",
        "DimensionIndexPointer",
        "FunctionalGroupPointer",
        "FrameIncrementPointer",
        # Segments.
        "SegmentSequence",
        "SegmentNumber",
        "SegmentIdentificationSequence",
        "ReferencedSegmentNumber",
        "MaximumFractionalValue",
        "RecommendedDisplayCIELabValue",
        "RecommendedDisplayGrayscaleValue",
        "PixelPaddingValue",
        # Doses.
        "DoseGridScaling",
        "GridFrameOffsetVector",
        # Contours.
        "StructureSetROISequence",
        "ROINumber",
        "ROIContourSequence",
        "ReferencedROINumber",
        "ROIDisplayColor",
        "ContourSequence",
        "ContourImageSequence",
        "ContourNumber",
        "NumberOfContourPoints",
        "ContourData",
        "RTROIObservationsSequence",
        "ObservationNumber",
        # Maps: what their numbers mean.
        "RealWorldValueMappingSequence",
        "RealWorldValueFirstValueMapped",
        "RealWorldValueLastValueMapped",
        "DoubleFloatRealWorldValueFirstValueMapped",
        "DoubleFloatRealWorldValueLastValueMapped",
        "RealWorldValueSlope",
        "RealWorldValueIntercept",
        # Whole slides: where a tile lies.
        "TotalPixelMatrixColumns",
        "TotalPixelMatrixRows",
        "TotalPixelMatrixFocalPlanes",
        "TotalPixelMatrixOriginSequence",
        "NumberOfOpticalPaths",
        "ImagedVolumeWidth",
        "ImagedVolumeHeight",
        "ImagedVolumeDepth",
        "ImageOrientationSlide",
        "XOffsetInSlideCoordinateSystem",
        "YOffsetInSlideCoordinateSystem",
        "ZOffsetInSlideCoordinateSystem",
        "PlanePositionSlideSequence",
        "ColumnPositionInTotalImagePixelMatrix",
        "RowPositionInTotalImagePixelMatrix",
    }
)

# Kept where a project keeps identities.
IDENTIFYING: Final = frozenset(
    {"PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"}
)


class SafePrivate(NamedTuple):
    """A private element of numbers, ``offset`` in its creator's block (PS3.5 7.8.1)."""

    creator: str
    group: int
    offset: int
    vr: str
    values_at_most: int
    meaning: str


# Of PS3.15 Table E.3.10-1, the numbers that tell volumes apart or give them units.
SAFE_PRIVATE: Final = (
    SafePrivate("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", 1, "b-value"),
    SafePrivate("SIEMENS MR HEADER", 0x0019, 0x0E, "FD", 3, "diffusion gradient direction"),
    SafePrivate("SIEMENS MR HEADER", 0x0019, 0x27, "FD", 6, "b-matrix"),
    SafePrivate("GEMS_PARM_01", 0x0043, 0x39, "IS", 4, "b-value"),
    SafePrivate("Philips Imaging DD 001", 0x2001, 0x03, "FL", 1, "b-value"),
    SafePrivate("Philips MR Imaging DD 001", 0x2005, 0x0D, "FL", 1, "scale intercept"),
    SafePrivate("Philips MR Imaging DD 001", 0x2005, 0x0E, "FL", 1, "scale slope"),
    SafePrivate("Philips PET Private Group", 0x7053, 0x00, "DS", 1, "SUV factor"),
    SafePrivate("Philips PET Private Group", 0x7053, 0x09, "DS", 1, "activity factor"),
)
