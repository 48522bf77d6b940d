"""JPEG-LS: equal pixels or none, kept once, and gone with what they were made of."""

from __future__ import annotations

import jpeg_ls
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from delineate import storage
from delineate.studies.lossless import PixelsDamaged, encoded_as_jpeg_ls, jpeg_ls_of
from delineate.studies.models import Series
from mlworker.contract.artifacts import pack_array
from tests.delineate.factories import new_project, new_series, new_study

Y, X = np.mgrid[:40, :50]
RAMP = (X + 3 * Y).astype(np.int16)


@pytest.mark.parametrize(
    ("pixels", "bits_stored", "bits_kept"),
    [
        (RAMP - 100, 16, 16),
        (RAMP.astype(np.uint16) * 300, 16, 16),
        (RAMP.astype(np.uint16), 12, 12),
        (RAMP.astype(np.uint16) % 200, 8, 16),  # a word of one byte stays a word
        (RAMP.astype(np.uint8), 8, 8),
        (RAMP.astype(np.int8), 8, 8),
        (np.stack([X, Y, X + Y], axis=-1).astype(np.uint8), 8, 8),
    ],
)
def test_what_jpeg_ls_can_hold_comes_back_equal(pixels, bits_stored, bits_kept):
    encoded = encoded_as_jpeg_ls(pixels, bits_stored=bits_stored)
    assert encoded is not None
    assert len(encoded) < pixels.nbytes
    decoded, described = jpeg_ls.decode_pixel_data(encoded)
    assert bytes(decoded) == pixels.tobytes()
    assert described["bits_per_sample"] == bits_kept
    assert described["allowed_lossy_error"] == 0


@pytest.mark.parametrize(
    ("pixels", "bits_stored"),
    [
        (RAMP.astype(np.uint32), 32),
        (RAMP.astype(np.uint16) * 300, 12),  # more than the header says
        (np.zeros((40, 50), np.uint8), 1),
        (np.zeros((1, 1), np.uint8), 8),
    ],
)
def test_what_it_cannot_hold_goes_without(pixels, bits_stored):
    assert encoded_as_jpeg_ls(pixels, bits_stored=bits_stored) is None


@given(
    st.sampled_from([np.int16, np.uint16, np.uint8]).flatmap(
        lambda kind: arrays.arrays(kind, st.tuples(st.integers(1, 30), st.integers(1, 30)))
    ),
    st.integers(0, 16),
)
def test_never_other_pixels(pixels, bits_stored):
    encoded = encoded_as_jpeg_ls(pixels, bits_stored=min(bits_stored, pixels.dtype.itemsize * 8))
    if encoded is not None:
        assert bytes(jpeg_ls.decode_pixel_data(encoded)[0]) == pixels.tobytes()


@pytest.fixture
def series(db) -> Series:
    """A series whose pixels are worth compressing."""
    return new_series(new_study(new_project()), pixels=np.stack([RAMP, RAMP + 1]))


def test_it_is_made_once_and_kept_beside_the_pixels(series):
    first, second = series.slices.all()
    made = jpeg_ls_of(first)
    assert made is not None
    storage.delete(first.pixels_key)  # what is kept needs them no more
    assert jpeg_ls_of(first) == made
    assert jpeg_ls_of(second) != made
    storage.delete_prefix(f"studies/{series.study_id}/")
    assert not storage.exists(first.pixels_key.replace(".npy", ".jls"))


def test_what_was_kept_in_part_is_made_anew(series):
    slice_ = series.slices.all()[0]
    made = jpeg_ls_of(slice_)
    assert made is not None
    for left in (b"", made[:100], made[:-20] + b"\0" * 20):
        storage.put(slice_.pixels_key.replace(".npy", ".jls"), left)
        assert jpeg_ls_of(slice_) == made


def test_pixels_that_are_not_those_of_the_ingest_are_not_compressed(series):
    slice_ = series.slices.all()[0]
    storage.put(slice_.pixels_key, pack_array(RAMP + 7))
    with pytest.raises(PixelsDamaged, match="upload it again") as damaged:
        jpeg_ls_of(slice_)
    assert damaged.value.code == "pixels_damaged"
    assert not storage.exists(slice_.pixels_key.replace(".npy", ".jls"))


def test_nothing_is_left_behind_of_a_study_that_is_deleted_meanwhile(series, monkeypatch):
    slice_ = series.slices.all()[0]
    put = storage.put

    def deleted_meanwhile(key: str, data: bytes, *, durable: bool) -> None:
        series.study.delete()
        put(key, data, durable=durable)

    monkeypatch.setattr(storage, "put", deleted_meanwhile)
    assert jpeg_ls_of(slice_) is not None
    assert not storage.exists(slice_.pixels_key.replace(".npy", ".jls"))
