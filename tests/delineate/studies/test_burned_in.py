"""Which images a person looks at before others do, as a table."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from delineate.projects.privacy import Policy
from delineate.studies import deidentify
from delineate.studies.burned_in import (
    SENTENCES,
    Reason,
    most_telling,
    reason_to_hold,
    say_cleaned,
)

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, PET, CR, DX, MG = (STORAGE + each for each in ("2", "4", "128", "1", "1.1", "1.2"))
ENDOSCOPY, PHOTOGRAPHY, FLUOROSCOPY = (STORAGE + each for each in ("77.1.1", "77.1.4", "12.2"))

NOT_HELD: dict[str, dict[str, Any]] = {
    "CT": {"SOPClassUID": CT, "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
    "MR": {"SOPClassUID": MR, "Modality": "MR"},
    "PET": {"SOPClassUID": PET, "Modality": "PT"},
    "CR": {"SOPClassUID": CR, "Modality": "CR"},
    "DX": {"SOPClassUID": DX, "Modality": "DX"},
    "mammography": {"SOPClassUID": MG, "Modality": "MG", "BurnedInAnnotation": "NO"},
    "endoscopy": {"SOPClassUID": ENDOSCOPY, "Modality": "ES"},
    "photograph": {"SOPClassUID": PHOTOGRAPHY, "Modality": "XC"},
    "fluoroscopy": {"SOPClassUID": FLUOROSCOPY, "Modality": "RF"},
    "a reformatted CT": {
        "SOPClassUID": CT,
        "Modality": "CT",
        "ImageType": ["DERIVED", "SECONDARY", "MPR"],
    },
    "one word of image type": {"SOPClassUID": CT, "Modality": "CT", "ImageType": "ORIGINAL"},
}
HELD: dict[str, tuple[Reason, dict[str, Any]]] = {
    "ultrasound by its modality": (Reason.ULTRASOUND, {"Modality": "US", "SOPClassUID": CT}),
    **{
        f"ultrasound class {suffix}": (Reason.ULTRASOUND, {"SOPClassUID": STORAGE + suffix})
        for suffix in ("3", "3.1", "6", "6.1", "6.2")
    },
    "ultrasound that says it is clean": (
        Reason.ULTRASOUND,
        {"Modality": "US", "BurnedInAnnotation": "NO"},
    ),
    **{
        f"secondary capture class {suffix}": (
            Reason.SECONDARY_CAPTURE,
            {"SOPClassUID": STORAGE + suffix, "Modality": "MR", "BurnedInAnnotation": "NO"},
        )
        for suffix in ("7", "7.1", "7.2", "7.3", "7.4")
    },
    "secondary capture by its modality": (Reason.SECONDARY_CAPTURE, {"Modality": "SC"}),
    "a dose sheet": (
        Reason.SCREEN_SAVE,
        {"SOPClassUID": CT, "Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ),
    "derived, of no modality": (
        Reason.SCREEN_SAVE,
        {"SOPClassUID": CT, "ImageType": ["DERIVED", "SECONDARY"]},
    ),
    "derived, of another modality": (
        Reason.SCREEN_SAVE,
        {"SOPClassUID": CT, "Modality": "OT", "ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
    ),
    "a flagged CT": (
        Reason.ANNOTATED,
        {"SOPClassUID": CT, "Modality": "CT", "BurnedInAnnotation": "YES"},
    ),
    "a flagged ultrasound": (Reason.ANNOTATED, {"Modality": "US", "BurnedInAnnotation": "YES"}),
    "a flagged endoscopy": (
        Reason.ANNOTATED,
        {"SOPClassUID": ENDOSCOPY, "Modality": "ES", "BurnedInAnnotation": "YES"},
    ),
    "a face": (
        Reason.RECOGNIZABLE,
        {"SOPClassUID": PHOTOGRAPHY, "Modality": "XC", "RecognizableVisualFeatures": "YES"},
    ),
}


def cleaned(attributes: dict[str, Any]) -> Dataset:
    """A header after de-identification: the rule sees no other."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return deidentify.clean(dataset, key=bytes(32), patient="", policy=Policy())


@pytest.mark.parametrize("attributes", NOT_HELD.values(), ids=NOT_HELD)
def test_what_carries_its_name_in_the_header_goes_on(attributes):
    assert reason_to_hold(cleaned(attributes)) is None


@pytest.mark.parametrize(("reason", "attributes"), HELD.values(), ids=HELD)
def test_what_may_show_a_name_is_held(reason, attributes):
    assert reason_to_hold(cleaned(attributes)) is reason


def test_every_reason_is_tried_here_and_has_a_sentence():
    assert {reason for reason, _ in HELD.values()} == set(Reason) == set(SENTENCES)
    assert all(sentence.endswith(".") for sentence in SENTENCES.values())


def test_one_image_that_is_held_holds_its_series():
    assert most_telling([None, Reason.ULTRASOUND, Reason.ANNOTATED]) is Reason.ANNOTATED
    assert most_telling([None, None]) is None


def test_a_cleaned_header_says_so_once():
    header = cleaned({"BurnedInAnnotation": "YES", "Modality": "US"})
    other = Dataset()
    other.CodeValue, other.CodingSchemeDesignator, other.CodeMeaning = "113100", "DCM", "Basic"
    header.DeidentificationMethodCodeSequence = [other]

    say_cleaned(header)
    say_cleaned(header)

    assert header.BurnedInAnnotation == "NO"
    codes = [item.CodeValue for item in header.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113101"]
    assert header.DeidentificationMethodCodeSequence[1].CodeMeaning == "Clean Pixel Data Option"
