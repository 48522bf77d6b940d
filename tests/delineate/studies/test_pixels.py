"""What a DICOM object must be to go in: every refusal by its code, and what is decoded."""

from __future__ import annotations

import io
import logging

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from delineate.studies import pixels
from delineate.studies.archive import RATIO_FROM_BYTES, Refused
from tests.delineate.studies.files import image, written

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n" + bytes(200)])
def test_what_is_not_dicom_is_refused(data):
    assert _refusal(data) == "not_dicom"


def test_a_file_cut_off_inside_its_header_is_refused():
    data = written(image())
    assert _refusal(data[:400]) in ("unreadable", "no_pixels")


def test_a_cut_off_file_is_refused():
    assert _refusal(written(image())[:-60]) in ("unreadable", "decode_failed")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "directory"),
        ({"SOPClassUID": BASIC_TEXT_SR}, "unsupported_kind"),
        ({"SOPClassUID": "1.2.3.4"}, "unsupported_kind"),
        ({"PixelData": None}, "no_pixels"),
        ({"Rows": 0}, "unsupported_size"),
        ({"Columns": pixels.MAX_SIDE + 1}, "unsupported_size"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "no_palette"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported_photometric"),
        ({"BitsAllocated": 64}, "unsupported_bits"),
        ({"BitsAllocated": 1}, "unsupported_bits"),
        ({"BitsAllocated": 32}, "decode_failed"),
        ({"PhotometricInterpretation": "RGB"}, "unsupported_photometric"),
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


def test_values_in_a_table_are_looked_up():
    table = Dataset()
    table.LUTDescriptor = [4, 1, 16]
    table.ModalityLUTType = "OD"
    table.add_new("LUTData", "OW", np.array([5, 70, 900, 60_000], "<u2").tobytes())
    indices = np.array([[0, 1, 2, 3, 4, 9]], np.uint16)
    dataset = image(pixels=indices, ModalityLUTSequence=[table], BitsStored=12, HighBit=11)
    (frame,) = _frames(dataset)
    np.testing.assert_array_equal(frame.stored, [[5, 5, 70, 900, 60_000, 60_000]])
    assert (frame.values.slope, frame.values.intercept) == (1.0, 0.0)
    header = Dataset()
    header.BitsStored = 12
    pixels.describe_pixels(header, frame.stored)
    assert header.BitsStored == 16


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_colour(bits):
    colours = np.arange(4) * (2**bits // 4)
    dataset = image(
        pixels=np.array([[0, 1], [2, 3]], np.uint8), photometric="PALETTE COLOR", RescaleSlope=1
    )
    for number, colour in enumerate(("Red", "Green", "Blue"), start=1):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, bits])
        data = (colours // number).astype("<u2" if bits == 16 else np.uint8).tobytes()
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    (frame,) = _frames(dataset)
    assert frame.stored.shape == (2, 2, 3)
    assert frame.stored.dtype == np.uint8
    np.testing.assert_array_equal(frame.stored[..., 0], [[0, 64], [128, 192]])
    np.testing.assert_array_equal(frame.stored[..., 1], [[0, 32], [64, 96]])


def test_deep_colour_keeps_its_highest_bits():
    deep = np.arange(48, dtype=np.uint16).reshape(4, 4, 3) * 80
    dataset = image(pixels=deep, photometric="RGB", BitsStored=12, HighBit=11)
    (frame,) = _frames(dataset)
    assert frame.stored.dtype == np.uint8
    np.testing.assert_array_equal(frame.stored, deep >> 4)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_values_of_32_bits_are_kept(dtype):
    values = np.array([[0, 70_000], [2**31 - 1, 5]], dtype)
    (frame,) = _frames(image(pixels=values))
    assert frame.stored.dtype == dtype
    np.testing.assert_array_equal(frame.stored, values)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_without_preamble_and_meta_information_is_read(syntax):
    dataset = image()
    expected = dataset.pixel_array
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    del dataset.file_meta
    dataset.save_as(buffer, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    (frame,) = _frames(buffer.getvalue())
    np.testing.assert_array_equal(frame.stored, expected)


def test_missing_uids_follow_from_the_bytes():
    bare = image(StudyInstanceUID=None, SeriesInstanceUID="", SOPInstanceUID=None)
    other = image(seed=1, StudyInstanceUID=None)

    def uids(data: bytes) -> list[str]:
        parsed = pixels.parse(data)
        return [parsed.StudyInstanceUID, parsed.SeriesInstanceUID, parsed.SOPInstanceUID]

    buffer = io.BytesIO()
    bare.save_as(buffer)
    data = buffer.getvalue()
    assert len(set(uids(data))) == 3
    assert uids(data) == uids(data)
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids(data))
    assert uids(data)[0] != uids(written(other))[0]


def test_pixels_of_no_said_kind_are_an_image():
    dataset = image()
    data = written(dataset)
    parsed = pixels.parse(data)
    del parsed.SOPClassUID
    pixels.check_kind(parsed)
    assert pydicom.uid.UID(parsed.SOPClassUID).name == "Secondary Capture Image Storage"


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
