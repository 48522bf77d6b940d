"""The viewer's door: headers and frames as pydicom reads them, and nobody else's."""

from __future__ import annotations

import email
import io
import json
import uuid

import jpeg_ls
import numpy as np
import pytest
from django.http import HttpResponse
from django.test import Client
from PIL import Image
from pydicom import Dataset

from delineate import storage
from delineate.errors import NotFound
from delineate.projects.models import Role
from delineate.studies.models import Instance, Series
from tests.delineate.factories import (
    ULTRASOUND_MULTIFRAME,
    browser_of,
    lead_of,
    new_member,
    new_project,
    new_series,
    new_study,
    new_user,
)
from tests.delineate.studies.files import image, send_and_ingest, zipped

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    """A project of one lead."""
    return new_project()


@pytest.fixture
def lead(project) -> Client:
    """The lead's browser."""
    return browser_of(lead_of(project))


def test_metadata_say_what_the_files_say(project, lead):
    files = [image(z=float(z), seed=z, InstanceNumber=z) for z in range(3)]
    send_and_ingest(lead, project, zipped(files))

    response = lead.get(f"{_series_url()}/metadata")

    assert response["Content-Type"] == "application/dicom+json"
    headers = [Dataset.from_json(header, _pixels_at) for header in json.loads(response.getvalue())]
    assert len(headers) == 3
    for header in headers:
        original = files[int(header.InstanceNumber)]
        for keyword in (
            *("Rows", "Columns", "BitsAllocated", "PixelRepresentation", "RescaleIntercept"),
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "WindowWidth"),
            *("PhotometricInterpretation", "SOPClassUID", "Modality"),
        ):
            assert header[keyword].value == original[keyword].value, keyword
        assert header.StudyInstanceUID == Series.objects.get().study.study_uid
        assert header.SeriesInstanceUID == Series.objects.get().series_uid


def test_a_frame_has_the_pixels_of_its_file(project, lead):
    file = image()
    send_and_ingest(lead, project, zipped([file]))
    response = lead.get(_frame_url(1))
    media_type, pixels = _only_part(response)
    assert media_type == "application/octet-stream;transfer-syntax=1.2.840.10008.1.2.1"
    assert np.array_equal(np.frombuffer(pixels, "<i2").reshape(8, 10), file.pixel_array)
    assert "private" in response["Cache-Control"]


def test_each_frame_of_a_multi_frame_object_has_its_own_pixels(project, lead):
    pixels = np.random.default_rng(2).integers(0, 255, (3, 6, 7), dtype=np.uint8)
    file = image(pixels=pixels, z=None, SOPClassUID=ULTRASOUND_MULTIFRAME)
    send_and_ingest(lead, project, zipped([file]))
    for number in (1, 2, 3):
        _, data = _only_part(lead.get(_frame_url(number)))
        assert data == pixels[number - 1].tobytes()


def test_members_of_every_role_may_look_and_nobody_else(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    for url in (f"{_series_url()}/metadata", _frame_url(1)):
        for role in Role:
            assert browser_of(new_member(project, role)).get(url).status_code == 200
        nobody, stranger = Client().get(url), browser_of(new_user()).get(url)
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "not_signed_in")
        assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "not_found")


def test_a_series_is_not_found_through_another_project(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    other = new_project(lead=lead_of(project), name="Kidneys")
    url = _series_url().replace(str(project.id), str(other.id))
    assert lead.get(f"{url}/metadata").status_code == 404


def test_what_is_not_there_is_not_found(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    for url in (
        _frame_url(2),
        _frame_url(0),
        _frame_url(1).replace("2.25.", "2.26."),
        f"/dicomweb/{project.id}/studies/1.2/series/1.2/metadata",
        f"/dicomweb/{uuid.uuid4()}/studies/1.2/series/1.2/metadata",
    ):
        assert lead.get(url).status_code == 404, url


def test_it_is_for_reading_only(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    assert lead.post(_frame_url(1)).status_code == 405


def test_frames_compress_for_who_takes_any_transfer_syntax(project, lead):
    y, x = np.mgrid[:32, :40]
    file = image(pixels=(x - 3 * y).astype(np.int16))
    send_and_ingest(lead, project, zipped([file]))
    any_ = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    response = lead.get(_frame_url(1), HTTP_ACCEPT=any_)
    media_type, content = _only_part(response)
    assert media_type == "application/octet-stream;transfer-syntax=1.2.840.10008.1.2.4.80"
    assert len(content) < len(file.PixelData)
    assert bytes(jpeg_ls.decode_pixel_data(content)[0]) == file.PixelData
    assert "Accept" in response["Vary"]
    bare = lead.get(_frame_url(1), HTTP_ACCEPT="application/octet-stream")
    assert (bare.content, bare["Content-Type"].partition(";")[0]) == (
        file.PixelData,
        "application/octet-stream",
    )


def test_what_cannot_be_compressed_goes_as_it_is_or_is_refused(project, lead):
    send_and_ingest(lead, project, zipped([image(pixels=np.ones((8, 10), np.uint32))]))
    any_ = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    media_type, content = _only_part(lead.get(_frame_url(1), HTTP_ACCEPT=any_))
    assert media_type == "application/octet-stream;transfer-syntax=1.2.840.10008.1.2.1"
    assert content == np.ones((8, 10), "<u4").tobytes()
    only = 'multipart/related; type="image/jls"'
    assert lead.get(_frame_url(1), HTTP_ACCEPT=only).status_code == 406


def test_a_kept_frame_costs_one_query_for_its_slice_and_no_header(
    project, lead, django_assert_num_queries
):
    send_and_ingest(lead, project, zipped([image(pixels=np.zeros((32, 40), np.int16))]))
    any_ = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    lead.get(_frame_url(1), HTTP_ACCEPT=any_)
    address = _frame_url(1)
    with django_assert_num_queries(4) as queries:  # session, user, project, slice
        lead.get(address, HTTP_ACCEPT=any_)
    assert not any("header" in query["sql"] for query in queries.captured_queries)


def test_a_study_is_read_while_it_is_sent(project, lead):
    series = new_series(new_study(project), pixels=np.zeros((70, 8, 10), np.int16))
    address = f"/dicomweb/{project.id}/studies/{series.study.study_uid}"
    pieces = iter(lead.get(address))
    assert next(pieces).startswith(b"--")
    assert b"DICM" in next(pieces)
    storage.delete_prefix(f"studies/{series.study_id}/")
    with pytest.raises(NotFound):  # cuts the answer off: a part of a study is not taken for it
        list(pieces)


def test_pictures_are_windowed_as_asked(project, lead):
    pixels = np.array([[0, 100], [200, 300]], np.uint16)
    file = image(pixels=pixels, RescaleIntercept=0, WindowCenter=100, WindowWidth=100)
    send_and_ingest(lead, project, zipped([file]))
    address = _frame_url(1)
    for parameters, expected in (
        ({}, [[0, 129], [255, 255]]),
        ({"window": "150,400"}, [[32, 96], [160, 224]]),
        ({"window": "150,400,linear"}, [[32, 96], [160, 224]]),
    ):
        response = lead.get(f"{address}/rendered", parameters, HTTP_ACCEPT="image/png")
        assert np.asarray(Image.open(io.BytesIO(response.content))).tolist() == expected
    sizes = {
        name: Image.open(io.BytesIO(lead.get(f"{address}/{name}", more).content)).size
        for name, more in (("thumbnail", {}), ("rendered", {"viewport": "30,60", "quality": "50"}))
    }
    assert sizes == {"thumbnail": (128, 128), "rendered": (30, 30)}


def test_what_cannot_be_understood_is_malformed(project, lead):
    send_and_ingest(lead, project, zipped([image()]))
    address = _frame_url(1)
    for wrong in (
        f"{address}/rendered?window=1",
        f"{address}/rendered?window=1,0.5",
        f"{address}/rendered?window=1,inf",
        f"{address}/rendered?window=1,2,sigmoid",
        f"{address}/rendered?viewport=0,5",
        f"{address}/rendered?viewport=5",
        f"{address}/rendered?quality=101",
        address.replace("/frames/1", "/frames/1,,2"),
        address.replace("/frames/1", "/frames/one"),
        address.replace("/frames/1", "/frames/99999"),
    ):
        response = lead.get(wrong)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed"), wrong


def _pixels_at(address: str) -> bytes:
    """Where the metadata says that pixels lie."""
    assert address.endswith("/bulkdata/7FE00010")
    return b""


def _series_url() -> str:
    series = Series.objects.get()
    study = series.study
    return f"/dicomweb/{study.project_id}/studies/{study.study_uid}/series/{series.series_uid}"


def _frame_url(number: int) -> str:
    return f"{_series_url()}/instances/{Instance.objects.get().sop_instance_uid}/frames/{number}"


def _only_part(response: HttpResponse) -> tuple[str, bytes]:
    """Media type as it stands, and bytes, of a multipart answer of one part."""
    assert response.status_code == 200, response.content
    outer = email.message_from_string(f"Content-Type: {response['Content-Type']}\r\n\r\n")
    assert outer.get_content_type() == "multipart/related"
    delimiter = f"--{outer.get_boundary()}".encode()
    before, part, end = response.content.split(delimiter)
    assert (before, end) == (b"", b"--\r\n")
    head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    assert body.endswith(b"\r\n")
    return head.decode().removeprefix("Content-Type: "), body[:-2]
