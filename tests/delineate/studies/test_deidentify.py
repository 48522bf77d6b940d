"""What is kept of a header, and that no key tells what another would."""

from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from delineate.studies import deidentify
from tests.delineate.studies.files import image

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def test_geometry_and_values_are_kept():
    original = image(KVP=120, PatientPosition="HFS", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    kept = deidentify.clean(original, key=KEY)
    for keyword in (
        *("SOPClassUID", "Modality", "Rows", "Columns", "PixelSpacing", "WindowCenter", "KVP"),
        *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
        *("PatientPosition", "ImageType"),
    ):
        assert kept[keyword].value == original[keyword].value, keyword
        assert kept[keyword].VR == original[keyword].VR
    assert kept.PatientIdentityRemoved == "YES"


def test_the_rest_is_not_kept_and_the_input_stays():
    original = image(PatientName="Doe^Jane", StudyDate="20200101", StudyDescription="Liver")
    original.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "Doe")
    kept = deidentify.clean(original, key=KEY)
    for keyword in ("PatientName", "PatientID", "StudyDate", "StudyDescription", "PixelData"):
        assert keyword not in kept
    assert not any(element.tag.is_private for element in kept)
    assert original.PatientName == "Doe^Jane"


def test_sequences_are_cleaned_inside():
    item, group = Dataset(), Dataset()
    item.PixelSpacing, item.PatientName = [1, 2], "Doe"
    group.PixelMeasuresSequence = Sequence([item])
    group.PatientComments = "Doe"
    kept = deidentify.clean(image(SharedFunctionalGroupsSequence=Sequence([group])), key=KEY)
    assert "Doe" not in str(kept)
    assert kept.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [1, 2]


@pytest.mark.parametrize("keyword", ["Modality", "BodyPartExamined", "Laterality", "RescaleType"])
def test_unknown_words_are_not_kept(keyword):
    original = image()
    setattr(original, keyword, "DOE")
    assert keyword not in deidentify.clean(original, key=KEY)


def test_unknown_values_of_an_image_type_keep_their_place():
    kept = deidentify.clean(image(ImageType=["ORIGINAL ", "DOE", "", "AXIAL"]), key=KEY)
    assert list(kept.ImageType) == ["ORIGINAL", "OTHER", "", "AXIAL"]


@pytest.mark.parametrize(
    ("vr", "value"), [("LO", "Doe"), ("FD", float("inf")), ("OB", b"Doe!"), ("DS", ["1", "2"])]
)
def test_a_number_is_kept_only_as_a_number(vr, value):
    original = image()
    original.add_new("KVP", vr, value)
    assert "KVP" not in deidentify.clean(original, key=KEY)


def test_a_number_too_large_for_its_kind_is_not_kept():
    original = image()
    original.add_new("InstanceNumber", "LO", "99999999999")
    assert "InstanceNumber" not in deidentify.clean(original, key=KEY)


def test_uids_are_keyed():
    ours = deidentify.replace_uid("1.2.3", key=KEY)
    assert ours == deidentify.replace_uid("1.2.3", key=KEY)
    assert ours != deidentify.replace_uid("1.2.3", key=OTHER_KEY)
    assert ours != deidentify.replace_uid("1.2.4", key=KEY)
    assert ours.startswith("2.25.")
    assert len(ours) <= 64
    kept = deidentify.clean(image(sop="1.2.3"), key=KEY)
    assert kept.SOPInstanceUID == ours


def test_pseudonyms_are_keyed():
    ours = deidentify.pseudonym("id\0\0PAT", key=KEY)
    assert ours == deidentify.pseudonym("id\0\0PAT", key=KEY)
    assert ours != deidentify.pseudonym("id\0\0PAT", key=OTHER_KEY)
    assert ours.startswith("S-")
    assert len(ours) == 2 + deidentify.PSEUDONYM_CHARACTERS


def test_a_patient_is_known_by_id_and_issuer_else_by_name_and_birth_date():
    def identity(**attributes: str) -> str | None:
        dataset = Dataset()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        return deidentify.identity_of(dataset)

    assert identity(PatientID="1", PatientName="A") == identity(PatientID="1", PatientName="B")
    assert identity(PatientID="1", IssuerOfPatientID="X") != identity(PatientID="1")
    assert identity(PatientName="A", PatientBirthDate="19700101") != identity(PatientName="A")
    assert identity() is None
