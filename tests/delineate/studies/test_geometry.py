"""Which volumes a series' frames are, in which order, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from delineate.studies.geometry import SENTENCES, Oddity, Placed, Volume, volumes

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def at(z: float | None, *, number: int = 0, **changes: object) -> Placed:
    """An axial frame at a height; in the order of ``number`` where it has none."""
    frame = Placed(
        shape=(8, 10),
        kind="MONOCHROME2",
        spacing_mm=(0.5, 0.75),
        orientation=None if z is None else AXIAL,
        position=None if z is None else (-10.0, -20.0, z),
        number=(number, "", 1),
    )
    return replace(frame, **changes)  # type: ignore[arg-type]


def only(frames: list[Placed]) -> Volume:
    (volume,) = volumes(frames)
    return volume


def test_an_even_stack_is_ordered_along_its_normal_and_has_nothing_odd() -> None:
    volume = only([at(4.0), at(0.0), at(2.0)])
    assert volume == Volume((1, 2, 0), 2.0, ())


def test_a_single_frame_is_a_volume() -> None:
    assert only([at(1.0)]) == Volume((0,), None, ())
    assert only([at(None)]) == Volume((0,), None, ())


def test_frames_without_positions_are_in_the_order_of_their_numbers_and_said_to_be() -> None:
    volume = only([at(None, number=n) for n in (3, 1, 2)])
    assert volume == Volume((1, 2, 0), None, (Oddity.UNPLACED,))


@pytest.mark.parametrize(
    ("heights", "oddity"),
    [
        ([0, 2, 4, 8, 10], Oddity.GAPS),
        ([0, 2, 4.4, 6.4, 8.4], Oddity.UNEVEN),
        ([0, 2, 4, 4, 6], Oddity.REPEATED),
    ],
)
def test_what_is_odd_about_distances_is_said_and_the_stack_is_kept(heights, oddity) -> None:
    volume = only([at(float(z), number=n) for n, z in enumerate(heights)])
    assert volume == Volume((0, 1, 2, 3, 4), None, (oddity,))


def test_distances_that_differ_by_rounding_are_even() -> None:
    assert only([at(z) for z in (0, 2.005, 3.995, 6.0)]).oddities == ()


@pytest.mark.parametrize(("degrees", "oddities"), [(0.1, ()), (15.0, (Oddity.TILTED,))])
def test_slices_that_are_shifted_against_each_other_are_tilted(degrees, oddities) -> None:
    shift = np.tan(np.radians(degrees))
    frames = [replace(at(z), position=(-10.0, -20.0 + shift * z, z)) for z in (0.0, 3.0, 6.0)]
    volume = only(frames)
    assert volume.oddities == oddities
    assert volume.slice_spacing_mm == pytest.approx(3.0)


@pytest.mark.parametrize(
    "other",
    [
        {"orientation": SAGITTAL},
        {"shape": (8, 11)},
        {"shape": (8, 10, 3)},
        {"spacing_mm": (0.5, 0.8)},
        {"spacing_mm": None},
        {"kind": "MONOCHROME1"},
    ],
)
def test_frames_that_are_no_stack_with_the_others_are_a_volume_of_their_own(other) -> None:
    frames = [at(9.0, **other), *[at(float(z)) for z in range(3)]]
    large, small = volumes(frames)
    assert large == Volume((1, 2, 3), 1.0, (Oddity.SPLIT,))
    assert small == Volume((0,), None, (Oddity.SPLIT,))


def test_an_orientation_that_is_rounded_is_the_same() -> None:
    nearly = (0.9999, 0.001, 0.0, 0.0, 1.0, 0.0)
    assert only([at(0.0), at(1.0, orientation=nearly)]).oddities == ()


def test_echoes_at_every_place_are_volumes() -> None:
    frames = [
        at(float(z), number=4 * z + echo, told_apart_by=(str(echo),))
        for echo in (1, 2)
        for z in range(3)
    ]
    first, second = volumes(frames)
    assert (first.frames, second.frames) == ((0, 1, 2), (3, 4, 5))
    assert first.slice_spacing_mm == second.slice_spacing_mm == 1.0
    assert first.oddities == (Oddity.SPLIT,)


def test_echoes_and_moments_are_told_apart_by_both() -> None:
    frames = [
        at(float(z), told_apart_by=(str(echo), str(moment)), number=n)
        for n, (z, echo, moment) in enumerate(
            (z, echo, moment) for z in range(2) for echo in (1, 2) for moment in (1, 2)
        )
    ]
    assert [len(volume.frames) for volume in volumes(frames)] == [2, 2, 2, 2]


def test_moments_that_no_header_tells_apart_are_by_the_turn_in_which_they_come() -> None:
    frames = [at(float(z), number=3 * moment + z) for z in range(3) for moment in (1, 2)]
    first, second = volumes(frames)
    assert first.frames == (0, 2, 4)
    assert second.frames == (1, 3, 5)


def test_a_film_of_one_place_stays_together() -> None:
    film = [at(3.0, number=n, told_apart_by=(str(n),)) for n in (2, 1, 3)]
    assert only(film) == Volume((1, 0, 2), None, (Oddity.REPEATED,))


def test_a_localizer_is_said_to_be_one() -> None:
    assert only([at(0.0, is_localizer=True)]).oddities == (Oddity.LOCALIZER,)


def test_every_oddity_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Oddity)
    assert all(sentence.endswith(".") for sentence in SENTENCES.values())
