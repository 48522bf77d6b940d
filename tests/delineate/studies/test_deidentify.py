"""What is kept of a header, and that no key tells what another would."""

from __future__ import annotations

import string
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from delineate.projects.privacy import Dates, Identities, Policy
from delineate.studies import deidentify
from delineate.studies.kept_attributes import SAFE_PRIVATE, SafePrivate
from tests.delineate.studies.files import image, reread

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
KNOWN = Policy(identities=Identities.KEPT)


def codes_of_cid_7050():
    """The context group as pydicom has it."""
    group = codes.cid7050
    return [getattr(group, name) for name in group.dir()]


def cleaned(
    original: Dataset, *, key: bytes = KEY, patient: str = "S-1", policy: Policy | None = None
) -> Dataset:
    return deidentify.clean(original, key=key, patient=patient, policy=policy or Policy())


def test_geometry_and_values_are_kept():
    original = image(KVP=120, PatientPosition="HFS", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    kept = cleaned(original)
    for keyword in (
        *("SOPClassUID", "Modality", "Rows", "Columns", "PixelSpacing", "WindowCenter", "KVP"),
        *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
        *("PatientPosition", "ImageType"),
    ):
        assert kept[keyword].value == original[keyword].value, keyword
        assert kept[keyword].VR == original[keyword].VR


def test_the_rest_is_not_kept_and_the_input_stays():
    original = image(PatientName="Doe^Jane", StudyDescription="Liver", PatientBirthDate="19700101")
    original.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "Doe")
    kept = cleaned(original)
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "StudyDescription", "PixelData"),
    ):
        assert keyword not in kept
    assert not any(element.tag.is_private for element in kept)
    assert original.PatientName == "Doe^Jane"


def test_sequences_are_cleaned_inside():
    item, group = Dataset(), Dataset()
    item.PixelSpacing, item.PatientName = [1, 2], "Doe"
    group.PixelMeasuresSequence = Sequence([item])
    group.PatientComments = "Doe"
    kept = cleaned(image(SharedFunctionalGroupsSequence=Sequence([group])))
    assert "Doe" not in str(kept)
    assert kept.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [1, 2]


@pytest.mark.parametrize(
    "keyword",
    ["Modality", "BodyPartExamined", "Laterality", "RescaleType", "Units", "PatientOrientation"],
)
def test_unknown_words_are_not_kept(keyword):
    original = image()
    setattr(original, keyword, "DOE")
    assert keyword not in cleaned(original)


def test_unknown_values_of_an_image_type_keep_their_place():
    kept = cleaned(image(ImageType=["ORIGINAL ", "DOE", "", "AXIAL"]))
    assert list(kept.ImageType) == ["ORIGINAL", "OTHER", "", "AXIAL"]


@pytest.mark.parametrize(
    ("vr", "value"), [("LO", "Doe"), ("FD", float("inf")), ("OB", b"Doe!"), ("DS", ["1", "2"])]
)
def test_a_number_is_kept_only_as_a_number(vr, value):
    original = image()
    original.add_new("KVP", vr, value)
    assert "KVP" not in cleaned(original)


def test_a_number_too_large_for_its_kind_is_not_kept():
    original = image()
    original.add_new("InstanceNumber", "LO", "99999999999")
    assert "InstanceNumber" not in cleaned(original)


def test_what_enhanced_images_say_of_echo_moment_and_diffusion_is_kept():
    echo, content, diffusion, group = Dataset(), Dataset(), Dataset(), Dataset()
    echo.EffectiveEchoTime, content.TemporalPositionIndex, diffusion.DiffusionBValue = 4.6, 2, 800.0
    group.MREchoSequence, group.FrameContentSequence = Sequence([echo]), Sequence([content])
    group.MRDiffusionSequence = Sequence([diffusion])
    kept = cleaned(image(PerFrameFunctionalGroupsSequence=Sequence([group])))
    (frame,) = kept.PerFrameFunctionalGroupsSequence
    assert frame.MREchoSequence[0].EffectiveEchoTime == 4.6
    assert frame.FrameContentSequence[0].TemporalPositionIndex == 2
    assert frame.MRDiffusionSequence[0].DiffusionBValue == 800.0


def test_directions_units_and_several_windows_are_kept():
    kept = cleaned(
        image(
            PatientOrientation=["L", "PH"], Units="BQML", WindowCenter=[40, 50], WindowWidth=[9, 8]
        )
    )
    assert list(kept.PatientOrientation) == ["L", "PH"]
    assert (kept.Units, list(kept.WindowCenter), list(kept.WindowWidth)) == (
        "BQML",
        [40, 50],
        [9, 8],
    )


# Tables of windows.


def table(values: list[int], *, bits: int = 12, first: int = 0) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "US", values)
    item.LUTExplanation = "Doe"
    return item


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, None])
def test_a_table_is_kept_as_numbers_however_it_was_written(syntax):
    original = image(VOILUTSequence=Sequence([table([0, 7, 4095])]))
    (kept,) = cleaned(reread(original, syntax)).VOILUTSequence
    assert list(kept.LUTDescriptor) == [3, 0, 12]
    assert list(kept.LUTData) == [0, 7, 4095]
    assert "LUTExplanation" not in kept


@pytest.mark.parametrize(
    "wrong", [table([0, 4096]), table([0, 1], bits=7), table([1, 2, 3])], ids=str
)
def test_a_table_that_is_not_what_it_says_is_none(wrong):
    if len(wrong.LUTData) == 3:
        wrong.LUTDescriptor[0] = 2
    assert not cleaned(image(VOILUTSequence=Sequence([wrong]))).VOILUTSequence


# Dates.


def test_a_patients_dates_move_together_by_whole_days():
    first = cleaned(image(StudyDate="20200131", StudyTime="0915", AcquisitionTime="091530.25"))
    second = cleaned(image(StudyDate="20200302", AcquisitionDateTime="20200302101112.5+0200"))
    days = deidentify.date_shift_days("S-1", key=KEY)
    assert -3650 <= days <= -1
    moved = datetime.strptime(first.StudyDate, "%Y%m%d") - datetime(2020, 1, 31)
    assert moved.days == days
    apart = datetime.strptime(second.StudyDate, "%Y%m%d") - datetime.strptime(
        first.StudyDate, "%Y%m%d"
    )
    assert apart.days == 31
    assert (first.StudyTime, first.AcquisitionTime) == ("0915", "091530.25")
    assert second.AcquisitionDateTime == f"{second.StudyDate}101112.5"
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"


def test_the_shift_is_keyed_by_project_and_patient():
    shifts = {
        deidentify.date_shift_days(patient, key=key)
        for patient in ("S-1", "S-2")
        for key in (KEY, OTHER_KEY)
    }
    assert len(shifts) == 4


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("StudyDate", value) for value in ("2020", "2020-01-01", "20201301", "00010101", "DOE")),
        *(("StudyTime", value) for value in ("25", "0960", "12:00", "120000.1234567")),
        *(("AcquisitionDateTime", value) for value in ("202001", "20200101DOE", "+0200")),
    ],
)
def test_what_is_no_day_and_no_time_is_not_kept(keyword, value):
    original = image()
    original.add_new(keyword, "LO", value)
    assert keyword not in cleaned(original)


@given(st.text(alphabet=string.printable, max_size=20), st.sampled_from(["Date", "Time"]))
def test_no_other_text_passes_as_a_date_or_time(text, kind):
    original = Dataset()
    original.add_new(f"Study{kind}", "LO", text)
    kept = str(cleaned(original).get(f"Study{kind}", ""))
    assert set(kept) <= set(string.digits + ".")


def test_dates_go_where_a_project_removes_them():
    kept = cleaned(
        image(StudyDate="20200131", StudyTime="0915"), policy=Policy(dates=Dates.REMOVED)
    )
    assert "StudyDate" not in kept
    assert "StudyTime" not in kept
    assert kept.LongitudinalTemporalInformationModified == "REMOVED"


# Characteristics and devices.


@pytest.mark.parametrize(
    ("age", "kept_as"),
    [
        *(("045Y", "045Y"), ("089Y", "089Y"), ("090Y", "090Y"), ("101Y", "090Y"), ("999M", "999M")),
        *(("45Y", None), ("DOEY", None)),
    ],
)
def test_the_oldest_are_all_of_one_age(age, kept_as):
    original = image()
    original.add_new("PatientAge", "LO", age)
    kept = cleaned(original, policy=Policy(patient_characteristics=True))
    assert kept.get("PatientAge") == kept_as


def test_characteristics_are_kept_where_a_project_keeps_them():
    original = image(PatientSex="F", PatientSize=1.7, PatientWeight=70, PatientAge="045Y")
    original.EthnicGroup = "Doe"
    kept = cleaned(original, policy=Policy(patient_characteristics=True))
    assert (kept.PatientSex, kept.PatientSize, kept.PatientWeight) == ("F", 1.7, 70)
    assert "EthnicGroup" not in kept
    for keyword in ("PatientSex", "PatientSize", "PatientWeight", "PatientAge"):
        assert keyword not in cleaned(original)


def test_a_device_is_kept_by_names_that_are_known():
    policy = Policy(device=True)
    original = image(Manufacturer="Siemens", ManufacturerModelName="Skyra", DeviceSerialNumber="1")
    kept = cleaned(original, policy=policy)
    assert (kept.Manufacturer, kept.ManufacturerModelName) == ("SIEMENS", "Skyra")
    assert "DeviceSerialNumber" not in kept
    unknown = cleaned(
        image(Manufacturer="Dr. Doe", ManufacturerModelName="Skyra Doe"), policy=policy
    )
    assert "Manufacturer" not in unknown
    assert "ManufacturerModelName" not in unknown
    assert "Manufacturer" not in cleaned(original)


# Private elements.


@pytest.mark.parametrize("safe", SAFE_PRIVATE, ids=lambda safe: f"{safe.creator} {safe.meaning}")
def test_a_safe_private_number_is_kept_under_its_creator(safe: SafePrivate):
    original = image()
    block = original.private_block(safe.group, safe.creator, create=True)
    block.add_new(safe.offset, safe.vr, [3] * safe.values_at_most)
    block.add_new(0x77, "LO", "Doe")
    kept = reread(cleaned(original))
    found = kept.private_block(safe.group, safe.creator)
    assert np.atleast_1d(found[safe.offset].value).tolist() == [3] * safe.values_at_most
    assert "Doe" not in str(kept)
    without = cleaned(original, policy=Policy(safe_private=False))
    assert not any(element.tag.is_private for element in without)


@pytest.mark.parametrize("safe", SAFE_PRIVATE, ids=lambda safe: f"{safe.creator} {safe.meaning}")
@pytest.mark.parametrize("value", ["Doe", b"Doe", ["1"] * 7])
def test_a_safe_private_element_that_is_no_number_is_not_kept(safe, value):
    original = image()
    kind = "OB" if isinstance(value, bytes) else "LO"
    original.private_block(safe.group, safe.creator, create=True).add_new(safe.offset, kind, value)
    assert not any(element.tag.is_private for element in cleaned(original))


def test_another_creators_element_at_a_safe_place_is_not_kept():
    original = image()
    original.private_block(0x0019, "ACME", create=True).add_new(0x0C, "IS", 800)
    assert not any(element.tag.is_private for element in cleaned(original))


# What is said of it.


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), ["113100", "113107", "113111"]),
        (Policy(dates=Dates.REMOVED, safe_private=False), ["113100"]),
        (
            Policy(patient_characteristics=True, device=True),
            ["113100", "113107", "113108", "113109", "113111"],
        ),
    ],
)
def test_a_header_says_what_was_done_to_it(policy, expected):
    original = image(PatientIdentityRemoved="NO", DeidentificationMethod="Doe")
    kept = cleaned(original, policy=policy)
    assert kept.PatientIdentityRemoved == "YES"
    assert "Doe" not in kept.DeidentificationMethod
    said = kept.DeidentificationMethodCodeSequence
    assert [item.CodeValue for item in said] == expected
    assert {item.CodingSchemeDesignator for item in said} == {"DCM"}
    meanings = {code.value: code.meaning for code in codes_of_cid_7050()}
    assert [item.CodeMeaning for item in said] == [meanings[code] for code in expected]


def test_what_was_burned_in_is_said_as_it_was():
    assert cleaned(image(BurnedInAnnotation="YES")).BurnedInAnnotation == "YES"


# Kept identities.


def test_where_identities_are_kept_a_patient_is_known():
    original = image(
        sop="1.2.3",
        PatientName="Doe^Jane",
        PatientBirthDate="19700101",
        IssuerOfPatientID="HOSPITAL",
        StudyDate="20200131",
        AcquisitionDateTime="20200131101112+0200",
        StudyDescription="Liver",
    )
    kept = cleaned(original, policy=KNOWN)
    for keyword in (
        *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "StudyDate"),
        *("AcquisitionDateTime", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
        *("FrameOfReferenceUID",),
    ):
        assert kept[keyword].value == original[keyword].value, keyword
    assert kept.PatientIdentityRemoved == "NO"
    assert "DeidentificationMethodCodeSequence" not in kept
    assert kept.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert "StudyDescription" not in kept


@pytest.mark.parametrize("name", ["Doe\0", "D" * 65, ""])
def test_a_name_that_cannot_be_one_is_not_kept(name):
    original = image()
    original.add_new("PatientName", "UT", name)
    assert "PatientName" not in cleaned(original, policy=KNOWN)


@pytest.mark.parametrize("wrong", ["DOE", "1", "1." * 40, "../etc"])
def test_a_uid_that_is_none_is_replaced_even_there(wrong):
    assert deidentify.kept_uid(wrong, key=KEY, policy=KNOWN).startswith("2.25.")


# Names here.


def test_uids_are_keyed():
    ours = deidentify.replace_uid("1.2.3", key=KEY)
    assert ours == deidentify.replace_uid("1.2.3", key=KEY)
    assert ours != deidentify.replace_uid("1.2.3", key=OTHER_KEY)
    assert ours != deidentify.replace_uid("1.2.4", key=KEY)
    assert ours.startswith("2.25.")
    assert len(ours) <= 64
    assert cleaned(image(sop="1.2.3")).SOPInstanceUID == ours


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
