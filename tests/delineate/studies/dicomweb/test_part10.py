"""DICOM files made of a header and pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from delineate.studies.dicomweb import part10
from delineate.studies.dicomweb.negotiation import NotAcceptable
from tests.delineate.studies.files import image


def header_of(dataset: pydicom.Dataset) -> dict[str, Any]:
    """As it is kept."""
    header: dict[str, Any] = dataset.to_json_dict()
    del header["7FE00010"]
    return header


def read(pieces) -> pydicom.Dataset:
    """The file of the pieces."""
    return pydicom.dcmread(io.BytesIO(b"".join(pieces)))


def test_a_file_says_what_its_header_says_and_is_padded():
    pixels = np.arange(15, dtype=np.uint8).reshape(1, 3, 5)
    dataset = image(pixels=pixels, z=None)
    told = part10.told(header_of(dataset), pseudonym="S-A", study_number=3)
    pieces = part10.file(
        told, transfer_syntax=ExplicitVRLittleEndian, frames=[pixels.tobytes()], count=1
    )
    file = read(pieces)
    assert len(file.PixelData) == 16
    assert np.array_equal(file.pixel_array, pixels[0])
    assert file.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert (file.PatientID, file.PatientName, file.StudyID) == ("S-A", "S-A", "3")
    assert (file.StudyDate, file.PatientSex, file.AccessionNumber) == ("", "", "")
    assert file.WindowWidth == dataset.WindowWidth


def test_what_was_kept_stays_but_for_who_it_is():
    kept = {
        "00080020": {"vr": "DA", "Value": ["20200101"]},
        "00100020": {"vr": "LO", "Value": ["A name"]},
    }
    told = part10.told(kept, pseudonym="S-A", study_number=1)
    assert told["00080020"] == kept["00080020"]
    assert told["00100020"]["Value"] == ["S-A"]
    assert list(told) == sorted(told)


def test_frames_are_taken_one_by_one():
    taken = []

    def frames():
        for number in range(3):
            taken.append(number)
            yield bytes(80)

    dataset = image(pixels=np.zeros((3, 8, 10), np.uint8), z=None)
    for syntax in (ExplicitVRLittleEndian, JPEGLSLossless):
        taken.clear()
        pieces = part10.file(header_of(dataset), transfer_syntax=syntax, frames=frames(), count=3)
        assert taken == []
        next(pieces)  # what stands before the pixels
        next(pieces)
        assert taken == [0]


def test_fragments_are_of_even_length_and_one_for_each_frame():
    dataset = image(pixels=np.zeros((2, 8, 10), np.uint8), z=None)
    pieces = part10.file(
        header_of(dataset), transfer_syntax=JPEGLSLossless, frames=[b"abc", b"defg"], count=2
    )
    found = list(pydicom.encaps.generate_frames(read(pieces).PixelData, number_of_frames=2))
    assert found == [b"abc\0", b"defg"]


def test_more_than_a_file_can_hold_is_refused_before_its_first_byte():
    header = header_of(image(Rows=16_384, Columns=16_384))
    with pytest.raises(NotAcceptable, match="larger than a DICOM file"):
        part10.file(header, transfer_syntax=ExplicitVRLittleEndian, frames=[], count=9)
    part10.file(header, transfer_syntax=JPEGLSLossless, frames=[], count=9)


@given(st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3))
def test_any_number_can_be_written(numbers):
    header = header_of(image())
    header["00200032"] = {"vr": "DS", "Value": numbers}
    sequence = {"00200032": {"vr": "DS", "Value": numbers}}
    header["00209113"] = {"vr": "SQ", "Value": [sequence]}
    pieces = part10.file(
        header, transfer_syntax=ExplicitVRLittleEndian, frames=[bytes(160)], count=1
    )
    file = read(pieces)
    for place in (file, file.PlanePositionSequence[0]):
        assert np.allclose([float(each) for each in place.ImagePositionPatient], numbers, rtol=1e-6)
