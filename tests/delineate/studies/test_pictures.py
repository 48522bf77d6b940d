"""PNG, JPEG and TIFF as DICOM: what is taken over, what is left behind, what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from delineate.studies import pictures, pixels
from delineate.studies.archive import Refused
from delineate.studies.models import Series, Study
from tests.delineate.factories import browser_of, lead_of, new_project
from tests.delineate.studies.files import fates, image, send_and_ingest, written, zipped

NAME = "ZANZIBARD"


def saved(values: npt.NDArray[Any] | Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **more)
    return buffer.getvalue()


def grey(dtype: type = np.uint8, *, seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (7, 9), dtype=dtype)


def colour(*, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (7, 9, 3), dtype=np.uint8)


def frames(data: bytes) -> list[npt.NDArray[Any]]:
    dataset = pictures.to_dicom(data)
    pixels.check_kind(dataset)
    return [frame.stored for frame in pixels.frames(dataset)]


def refusal(data: bytes) -> str:
    with pytest.raises(Refused) as caught:
        pictures.to_dicom(data)
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("values", [grey(), grey(np.uint16), colour()], ids=["8", "16", "colour"])
def test_a_picture_keeps_its_pixels(kind, values) -> None:
    data = saved(values, kind)
    assert pictures.is_picture(data)
    (kept,) = frames(data)
    assert kept.dtype == values.dtype
    np.testing.assert_array_equal(kept, values)


def test_a_dicom_file_whose_preamble_is_a_tiffs_is_no_picture() -> None:
    file = written(image())
    assert not pictures.is_picture(b"II*\0" + file[4:])


def test_a_jpeg_is_what_it_decodes_to() -> None:
    data = saved(colour(), "JPEG", quality=90)
    (kept,) = frames(data)
    np.testing.assert_array_equal(kept, np.asarray(Image.open(io.BytesIO(data))))


def test_pages_are_frames() -> None:
    pages = [grey(np.uint16, seed=seed) for seed in range(3)]
    first, *others = (Image.fromarray(page) for page in pages)
    kept = frames(saved(first, "TIFF", save_all=True, append_images=others))
    np.testing.assert_array_equal(kept, pages)


def test_grey_that_was_saved_as_colour_is_grey() -> None:
    values = grey()
    (kept,) = frames(saved(np.stack([values] * 3, axis=-1)))
    np.testing.assert_array_equal(kept, values)


def test_black_and_white_a_palette_and_transparency_are_seen_as_they_look() -> None:
    values = grey() > 128
    assert set(np.unique(frames(saved(values)))) == {0, 255}
    indexed = Image.fromarray(colour()).quantize(8)
    (kept,) = frames(saved(indexed))
    np.testing.assert_array_equal(kept, np.asarray(indexed.convert("RGB")))
    (kept,) = frames(saved(Image.fromarray(grey()).convert("LA")))
    np.testing.assert_array_equal(kept, grey())


def test_a_photograph_is_put_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (kept,) = frames(saved(grey(), "TIFF", exif=exif))
    np.testing.assert_array_equal(kept, np.rot90(grey(), -1))


def test_grey_of_eight_bits_is_seen_as_it_is_elsewhere() -> None:
    (frame,) = pixels.frames(pictures.to_dicom(saved(grey())))
    assert frame.values.window == (127.5, 255)
    (frame,) = pixels.frames(pictures.to_dicom(saved(grey(np.uint16))))
    assert frame.values.window is None


def test_the_same_picture_is_the_same_object() -> None:
    one, same, other = (pictures.to_dicom(saved(grey(seed=seed))) for seed in (0, 0, 1))
    assert one.SOPInstanceUID == same.SOPInstanceUID != other.SOPInstanceUID
    assert one.StudyInstanceUID == same.StudyInstanceUID != other.StudyInstanceUID


@pytest.mark.parametrize(
    "data",
    [
        saved(grey())[:60],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"\xff\xd8\xff\xe0 no picture",
        b"II*\0" + bytes(40),
        saved(grey(np.uint16), "TIFF")[:-30],
    ],
)
def test_a_damaged_picture_is_refused(data) -> None:
    assert refusal(data) == "unreadable"


def test_a_picture_that_says_it_is_enormous_is_refused_before_it_is_decoded() -> None:
    data = bytearray(saved(grey()))
    at = data.index(b"IHDR") + 4
    data[at : at + 8] = (60_000).to_bytes(4, "big") * 2
    assert refusal(bytes(data)) in ("unsupported_size", "unreadable")


def test_pages_that_unpack_to_too_much_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 300)
    pages = [Image.fromarray(grey(seed=seed)) for seed in range(3)]
    assert refusal(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == "zip_bomb"


def test_too_many_pages_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(pixels, "MAX_FRAMES", 2)
    pages = [Image.fromarray(grey(seed=seed)) for seed in range(3)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert refusal(data) == "too_many_frames"


def test_pages_that_differ_are_refused() -> None:
    other = Image.fromarray(grey()[:4])
    data = saved(Image.fromarray(grey()), "TIFF", save_all=True, append_images=[other])
    assert refusal(data) == "pages_differ"


def test_values_that_are_no_pictures_are_refused() -> None:
    assert refusal(saved(Image.fromarray(grey().astype(np.float32)), "TIFF")) == "unsupported_bits"


@pytest.mark.django_db
def test_pictures_go_in_by_the_front_door_without_what_is_written_beside_them() -> None:
    said = PngInfo()
    said.add_text("Comment", NAME)
    exif = Image.Exif()
    exif[0x010E] = NAME  # description
    files: dict[str, Any] = {
        f"{NAME}.png": saved(colour(), pnginfo=said),
        "other.jpg": saved(grey(), "JPEG", exif=exif, comment=NAME.encode()),
        "anna/1.png": saved(grey(seed=3)),
        "anna/2.tif": saved(grey(np.uint16), "TIFF"),
        "broken.png": saved(grey())[:60],
    }
    project = new_project()
    lead = browser_of(lead_of(project))
    upload = send_and_ingest(lead, project, zipped(files))
    again = send_and_ingest(lead, project, files[f"{NAME}.png"])

    assert fates(upload) == [*[("stored", "in_quarantine")] * 4, ("refused", "unreadable")]
    assert fates(again) == [("duplicate", "duplicate")]
    assert {series.modality for series in Series.objects.all()} == {"OT"}
    # One folder, one subject; each loose picture is somebody of their own.
    assert Study.objects.count() == 4
    assert Study.objects.values("subject").distinct().count() == 3
    for series in Series.objects.select_related("study"):
        assert NAME not in str([instance.header for instance in series.instances.all()])
