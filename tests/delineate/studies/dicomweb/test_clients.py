"""Images go in and come out again through somebody else's client, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from delineate.studies import ingest
from delineate.studies.models import Upload, WayIn
from tests.delineate.factories import (
    ULTRASOUND_MULTIFRAME,
    browser_of,
    lead_of,
    new_project,
    new_uid,
)
from tests.delineate.studies.dicomweb.clients import dicomweb_client
from tests.delineate.studies.files import fates, image

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    """A project of one lead."""
    return new_project()


@pytest.fixture
def client(project):
    """The lead's client."""
    return dicomweb_client(browser_of(lead_of(project)), project)


def stored(client, files) -> Upload:
    """What was sent in one request, ingested."""
    answer = client.store_instances(files)
    assert len(answer.ReferencedSOPSequence) == len(files)
    upload = Upload.objects.get()
    ingest.ingest(upload.id)
    upload.refresh_from_db()
    return upload


def test_a_series_comes_back_as_it_was_sent(project, client):
    files = [image(z=float(z), seed=z, InstanceNumber=z + 1) for z in range(50)]
    upload = stored(client, files)
    assert (upload.way_in, upload.blob_count, upload.by) == (WayIn.STOW, 1, lead_of(project))
    assert fates(upload) == [("stored", "")] * 50

    (study,) = client.search_for_studies()
    study_uid = study["0020000D"]["Value"][0]
    (series,) = client.search_for_series(study_uid)
    series_uid = series["0020000E"]["Value"][0]
    assert series["00201209"]["Value"] == [50]
    assert len(client.search_for_instances(study_uid, series_uid)) == 50

    retrieved = client.retrieve_series(study_uid, series_uid)
    by_number = {int(each.InstanceNumber): each for each in retrieved}
    assert len(by_number) == 50
    for file in files:
        ours = by_number[int(file.InstanceNumber)]
        assert ours.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert np.array_equal(ours.pixel_array, file.pixel_array)
        assert ours.ImagePositionPatient == file.ImagePositionPatient
        assert ours.PatientID == ours.PatientName == study["00100020"]["Value"][0]
        assert "PAT-1" not in str(ours)


def test_what_is_stored_is_found_at_the_addresses_that_storing_told(client):
    file = image()
    answer = client.store_instances([file])
    (reference,) = answer.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == file.SOPInstanceUID  # the sender's
    ingest.ingest(Upload.objects.get().id)
    (found,) = client.search_for_instances()
    assert found["00081190"]["Value"] == [reference.RetrieveURL]
    (study,) = client.search_for_studies()
    assert study["00081190"]["Value"] == [answer.RetrieveURL]


@pytest.mark.parametrize("media_types", [None, (("image/jls", JPEGLSLossless),)])
def test_frames_are_those_of_the_file(client, media_types):
    pixels = np.random.default_rng(2).integers(0, 255, (3, 32, 40), dtype=np.uint8)
    pixels[:, 4:, 4:] = 7  # else it is noise, of which JPEG-LS makes more
    stored(client, [image(pixels=pixels, z=None, SOPClassUID=ULTRASOUND_MULTIFRAME)])
    uids = _uids(client)
    frames = client.retrieve_instance_frames(*uids, frame_numbers=[3, 1], media_types=media_types)
    if media_types is not None:
        frames = [_decoded(client, uids, frame) for frame in frames]
    assert frames == [pixels[2].tobytes(), pixels[0].tobytes()]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, "*"])
@pytest.mark.parametrize("kind", ["signed", "unsigned", "12 bits", "colour", "32 bits", "frames"])
def test_objects_are_whole_in_every_transfer_syntax(client, kind, syntax):
    file = made(kind)
    stored(client, [file])
    for retrieved in (
        client.retrieve_instance(*_uids(client), media_types=(("application/dicom", syntax),)),
        client.retrieve_study(_uids(client)[0], media_types=(("application/dicom", syntax),))[0],
    ):
        compressed = syntax == JPEGLSLossless and kind != "32 bits"
        expected = JPEGLSLossless if compressed else ExplicitVRLittleEndian
        assert retrieved.file_meta.TransferSyntaxUID == expected
        assert retrieved.PhotometricInterpretation == file.PhotometricInterpretation
        assert retrieved.pixel_array.dtype == file.pixel_array.dtype
        assert np.array_equal(retrieved.pixel_array, file.pixel_array)


def test_metadata_lead_to_the_pixels(client):
    file = image()
    stored(client, [file])
    uids = _uids(client)
    (of_study,) = client.retrieve_study_metadata(uids[0])
    (of_series,) = client.retrieve_series_metadata(*uids[:2])
    of_instance = client.retrieve_instance_metadata(*uids)
    assert of_study == of_series == of_instance
    (pixels,) = client.retrieve_bulkdata(of_study["7FE00010"]["BulkDataURI"])
    assert pixels == file.PixelData


def test_pictures_can_be_looked_at(client):
    stored(client, [image(pixels=np.full((20, 30), 40 + 24, np.int16))])
    uids = _uids(client)
    for media_type, magic in (("image/png", b"\x89PNG"), ("image/jpeg", b"\xff\xd8")):
        picture = client.retrieve_instance_rendered(*uids, media_types=(media_type,))
        assert picture.startswith(magic)
        frame = client.retrieve_instance_frames_rendered(
            *uids, frame_numbers=[1], media_types=(media_type,)
        )
        assert frame == picture


def test_a_scanners_series_comes_back_bit_by_bit(client, shared_folder):
    folder = shared_folder / "data/dicom/series/neurolabusc+dcm_qa_ct/In/GE"
    if not folder.is_dir():
        pytest.skip(f"There is no scanner's series at {folder}.")
    files = [pydicom.dcmread(path) for path in sorted(Path(folder).iterdir())]
    stored(client, files)
    study_uid, series_uid, _ = _uids(client)
    retrieved = {
        tuple(each.ImagePositionPatient): each
        for each in client.retrieve_series(study_uid, series_uid)
    }
    assert len(retrieved) == len(files)
    for file in files:
        ours = retrieved[tuple(file.ImagePositionPatient)]
        assert np.array_equal(ours.pixel_array, file.pixel_array)


def made(kind: str) -> pydicom.Dataset:
    """An image of a kind of pixels."""
    y, x = np.mgrid[:32, :40]
    slope = (x * 3 + y * 5).astype(np.int16)
    match kind:
        case "signed":
            return image(pixels=slope - 100)
        case "unsigned":
            return image(pixels=(slope * 200).astype(np.uint16))
        case "12 bits":
            return image(pixels=slope.astype(np.uint16), BitsStored=12, HighBit=11)
        case "32 bits":
            return image(pixels=slope.astype(np.uint32) * 100_000)
        case "colour":
            pixels = np.stack([x, y, x + y], axis=-1).astype(np.uint8)
            return image(pixels=pixels, photometric="RGB", z=None)
        case "frames":
            frames = np.stack([slope % 251, slope % 13, slope % 7]).astype(np.uint8)
            return image(pixels=frames, z=None, SOPClassUID=ULTRASOUND_MULTIFRAME)
    raise AssertionError(kind)


def _uids(client) -> tuple[str, str, str]:
    (found,) = client.search_for_instances(limit=1)
    return tuple(found[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))


def _decoded(client, uids, frame: bytes) -> bytes:
    """A JPEG-LS frame's pixels as pydicom has them."""
    dataset = pydicom.Dataset.from_json(
        client.retrieve_instance_metadata(*uids), lambda _address: b""
    )
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.SOPInstanceUID, dataset.NumberOfFrames = new_uid(), 1
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    return dataset.pixel_array.tobytes()
