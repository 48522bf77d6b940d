"""Accept as clients write it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.studies.dicomweb.negotiation import Form, NotAcceptable, choose
from delineate.studies.dicomweb.wado import FRAME, FRAMES, METADATA, ONE_FILE, PICTURES

LITTLE, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
MULTI_OCTETS = Form("application/octet-stream", LITTLE, is_multipart=True)
MULTI_SMALL = Form("application/octet-stream", JPEG_LS, is_multipart=True)
MULTI_JLS = Form("image/jls", JPEG_LS, is_multipart=True)
OCTETS = Form("application/octet-stream", LITTLE)
MULTI_DICOM = Form("application/dicom", LITTLE, is_multipart=True)
MULTI_SMALL_DICOM = Form("application/dicom", JPEG_LS, is_multipart=True)
DICOM = Form("application/dicom", LITTLE)
JSON = Form("application/dicom+json")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", MULTI_OCTETS),
        ("*/*", MULTI_OCTETS),
        ("multipart/related", MULTI_OCTETS),
        # Cornerstone and OHIF
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", MULTI_SMALL),
        ('multipart/related; type="application/octet-stream"; transfer-syntax="*"', MULTI_SMALL),
        (f"multipart/related;type=application/octet-stream;transfer-syntax={JPEG_LS}", MULTI_SMALL),
        # dicomweb-client, and with it Slicer
        ('multipart/related; type="application/octet-stream"', MULTI_OCTETS),
        (
            f'multipart/related; type="application/octet-stream"; transfer-syntax={LITTLE}',
            MULTI_OCTETS,
        ),
        (f'multipart/related; type="image/jls"; transfer-syntax={JPEG_LS}', MULTI_JLS),
        ('multipart/related; type="image/jls"', MULTI_JLS),
        (
            'multipart/related; type="image/jpeg", multipart/related; type="image/jls"',
            MULTI_JLS,
        ),
        ('multipart/related; type="image/*"', MULTI_JLS),
        ('multipart/related; type="image/jls"; q=0.3, multipart/related; q=0.5', MULTI_OCTETS),
        ("multipart/related;type=image/jls;q=0, */*;q=0.1", MULTI_OCTETS),
        ("application/octet-stream", OCTETS),
        ("MULTIPART/RELATED; TYPE=Application/Octet-Stream", MULTI_OCTETS),
    ],
)
def test_a_frame_goes_as_its_reader_wishes(accept, form):
    assert choose(accept, FRAME) == form


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        'multipart/related; type="image/jp2"',
        "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.90",
        "*/*;q=0",
        "*/*;q=nonsense",
        "nonsense",
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(accept):
    with pytest.raises(NotAcceptable, match="multipart/related of application/octet-stream"):
        choose(accept, FRAME)


def test_several_frames_are_parts():
    with pytest.raises(NotAcceptable):
        choose("application/octet-stream", FRAMES)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", MULTI_DICOM),
        ('multipart/related; type="application/dicom"', MULTI_DICOM),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', MULTI_DICOM),
        ("multipart/related; type=application/dicom; transfer-syntax=*", MULTI_DICOM),
        (
            f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}',
            MULTI_SMALL_DICOM,
        ),
        ("application/dicom", DICOM),
        ("application/dicom; transfer-syntax=*", DICOM),
    ],
)
def test_files_are_uncompressed_unless_compression_is_named(accept, form):
    assert choose(accept, ONE_FILE) == form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", JSON),
        ("application/dicom+json, application/json", JSON),
        ("application/json", Form("application/json")),
        ('multipart/related; type="application/dicom+xml", application/dicom+json', JSON),
    ],
)
def test_metadata_are_json(accept, form):
    assert choose(accept, METADATA) == form


def test_a_comma_within_quotes_divides_nothing():
    assert choose('image/gif; name="a, image/jpeg", image/png', PICTURES) == Form("image/png")


@given(st.text())
def test_no_accept_breaks_anything(accept):
    with suppress(NotAcceptable):
        assert choose(accept, FRAME) in FRAME
