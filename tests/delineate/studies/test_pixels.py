"""What a DICOM object must be to go in: every refusal by its code, and what is decoded."""

from __future__ import annotations

import io
import logging

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from delineate.studies import pixels
from delineate.studies.archive import RATIO_FROM_BYTES, Refused
from tests.delineate.studies.files import image, written

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n" + bytes(200)])
def test_what_is_not_dicom_is_refused(data):
    assert _refusal(data) == "not_dicom"


def test_a_file_cut_off_inside_its_header_is_refused():
    data = written(image())
    assert _refusal(data[:400]) in ("unreadable", "uid_missing")


def test_a_cut_off_file_is_refused():
    assert _refusal(written(image())[:-60]) in ("unreadable", "decode_failed")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "directory"),
        ({"StudyInstanceUID": None}, "uid_missing"),
        ({"SeriesInstanceUID": ""}, "uid_missing"),
        ({"SOPClassUID": BASIC_TEXT_SR}, "unsupported_kind"),
        ({"SOPClassUID": "1.2.3.4"}, "unsupported_kind"),
        ({"PixelData": None}, "no_pixels"),
        ({"Rows": 0}, "unsupported_size"),
        ({"Columns": pixels.MAX_SIDE + 1}, "unsupported_size"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_photometric"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported_photometric"),
        ({"BitsAllocated": 32}, "unsupported_bits"),
        ({"BitsAllocated": 1}, "unsupported_bits"),
        ({"PhotometricInterpretation": "RGB"}, "unsupported_bits"),
        ({"NumberOfFrames": pixels.MAX_FRAMES + 1}, "too_many_frames"),
        ({"NumberOfFrames": 2}, "decode_failed"),
        ({"Rows": 9}, "decode_failed"),
    ],
)
def test_what_cannot_be_delineated_is_refused_by_name(changes, code):
    assert _refusal(image(**changes)) == code


def test_floating_point_pixels_are_refused():
    dataset = image(PixelData=None)
    dataset.FloatPixelData = bytes(4 * 80)
    assert _refusal(dataset) == "unsupported_pixels"


def test_values_in_a_table_are_refused():
    table = Dataset()
    table.LUTDescriptor = [2, 0, 16]
    table.ModalityLUTType = "OD"
    table.add_new("LUTData", "OW", b"\5\0\7\0")
    assert _refusal(image(ModalityLUTSequence=[table])) == "unsupported_modality_lut"


def test_a_deflated_file_is_read():
    deflated = image()
    expected = deflated.pixel_array
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (frame,) = _frames(deflated)
    np.testing.assert_array_equal(frame.stored, expected)


def test_a_deflated_bomb_is_refused():
    bomb = image()
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.add_new(0x00091010, "LO", "filler")
    bomb.add_new(0x00091020, "OB", bytes(2 * RATIO_FROM_BYTES))
    assert _refusal(bomb) == "zip_bomb"


def test_a_private_class_is_not_repeated_in_the_message():
    with pytest.raises(Refused) as caught:
        pixels.check_kind(image(SOPClassUID="1.2.3.666"))
    assert "666" not in caught.value.message


def test_an_ill_formed_value_is_in_no_log():
    (stderr,) = [each for each in logging.root.handlers if type(each) is logging.StreamHandler]
    data = written(image(study="1.2.3", series="1.2.4", PatientAge="045Y", FrameOfReferenceUID=""))
    assert data.count(b"1.2.3\0") == 1
    data = data.replace(b"1.2.3\0", b"ANNA.1").replace(b"045Y", b"OTTO")
    log = io.StringIO()
    before = stderr.setStream(log)
    try:
        assert len(_frames(data)) == 1
        logging.getLogger("delineate").warning("This is heard.")
    finally:
        stderr.setStream(before)
    assert "This is heard." in log.getvalue()
    assert "ANNA" not in log.getvalue()
    assert "OTTO" not in log.getvalue()


def test_a_number_that_is_none_is_refused():
    dataset = image()
    del dataset["Rows"]
    dataset.add_new("Rows", "LO", "many")
    assert _refusal(dataset) == "unreadable"


def test_compressed_pixels_equal_native_ones():
    native = image(pixels=np.random.default_rng(0).integers(0, 4000, (8, 10), dtype=np.uint16))
    expected = native.pixel_array
    native.compress(RLELossless, encoding_plugin="pydicom")
    assert np.array_equal(_frames(native)[0].stored, expected)


def test_big_endian_pixels_become_little_endian():
    pixels_ = np.arange(80, dtype=np.int16).reshape(8, 10)
    dataset = image(pixels=pixels_)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    dataset["PixelData"].value = pixels_.astype(">i2").tobytes()
    stored = _frames(dataset)[0].stored
    assert stored.dtype == np.dtype("<i2")
    assert np.array_equal(stored, pixels_)


@pytest.mark.parametrize(
    "orientation", [[1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
)
def test_an_impossible_orientation_counts_as_none(orientation):
    (frame,) = _frames(image(ImageOrientationPatient=orientation))
    assert frame.geometry.orientation is None
    assert frame.geometry.position is None


def test_a_spacing_of_zero_counts_as_none():
    (frame,) = _frames(image(PixelSpacing=[0, 1]))
    assert frame.geometry.row_spacing_mm is None


def test_a_slope_of_zero_counts_as_one_and_a_width_of_zero_as_none():
    (frame,) = _frames(image(RescaleSlope=0, WindowWidth=0))
    assert frame.values.slope == 1
    assert frame.values.window is None


def _frames(file: Dataset | bytes) -> list[pixels.Frame]:
    parsed = pixels.parse(file if isinstance(file, bytes) else written(file))
    pixels.check_kind(parsed)
    return list(pixels.frames(parsed))


def _refusal(file: Dataset | bytes) -> str:
    with pytest.raises(Refused) as caught:
        _frames(file)
    assert caught.value.message.endswith(".")
    return caught.value.code
