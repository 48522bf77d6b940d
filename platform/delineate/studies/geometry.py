"""Frames of a DICOM series -> the volumes that they are, in order, and what is odd about each.

A series should be one stack of parallel, evenly spaced slices. Hospitals' are not always: scouts
lie across, several echoes or moments share every place, gantries tilt, slices are missing. Frames
that are no stack with the others become a volume of their own; everything else is kept as it is and
said. Values only; lengths in mm, patient axes (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

SAME_MM: Final = 1e-3
SAME_DIRECTION: Final = 1e-2  # headers round to a few decimals
UNEVEN: Final = 0.01  # of the usual step
A_GAP: Final = 1.5  # usual steps
TILTED_DEGREES: Final = 0.5
_DECIMALS: Final = 2  # of a mm: places that differ by less are one


class Oddity(StrEnum):
    """What whoever works with a volume should know of its geometry."""

    SPLIT = "split_series"
    UNPLACED = "no_positions"
    TILTED = "gantry_tilt"
    GAPS = "gaps"
    UNEVEN = "uneven_spacing"
    REPEATED = "repeated_positions"
    LOCALIZER = "localizer"


SENTENCES: Final = {
    Oddity.SPLIT: "The DICOM series holds several volumes; this is one of them.",
    Oddity.UNPLACED: "The files do not say where the slices lie; they are in the order of their "
    "numbers.",
    Oddity.TILTED: "The slices are shifted against each other, as from a tilted gantry.",
    Oddity.GAPS: "Slices are missing: some neighbours are much farther apart than the others.",
    Oddity.UNEVEN: "The slices are not evenly spaced.",
    Oddity.REPEATED: "Several slices lie at the same place.",
    Oddity.LOCALIZER: "A localizer: a scout for planning, not the examination itself.",
}


@dataclass(frozen=True)
class Placed:
    """A frame, as far as its place in a series goes. ``number`` orders what has no position."""

    shape: tuple[int, ...]
    kind: str  # photometric interpretation: greys that run the other way are another volume
    spacing_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    number: tuple[int, str, int]  # instance number, instance, frame
    # What may tell frames at one place apart: echo, moment, kind of image, … most telling first.
    told_apart_by: tuple[str, ...] = ()
    is_localizer: bool = False


@dataclass(frozen=True)
class Volume:
    """Frames in order, by their index in the series; the distance of neighbours where it is one."""

    frames: tuple[int, ...]
    slice_spacing_mm: float | None
    oddities: tuple[Oddity, ...]


def volumes(frames: Sequence[Placed]) -> list[Volume]:
    """The volumes of a series, those with the most frames first; every frame is in one of them."""
    stacks = [stack for parallel in _parallel(frames) for stack in _told_apart(frames, parallel)]
    stacks.sort(key=lambda stack: (-len(stack), min(frames[i].number for i in stack)))
    return [_volume(frames, stack, is_split=len(stacks) > 1) for stack in stacks]


def _parallel(frames: Sequence[Placed]) -> list[list[int]]:
    """Frames of one size, spacing, orientation and kind."""
    groups: list[list[int]] = []
    for index, frame in enumerate(frames):
        for group in groups:
            if _alike(frame, frames[group[0]]):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _alike(one: Placed, other: Placed) -> bool:
    return (
        (one.shape, one.kind) == (other.shape, other.kind)
        and _close(one.spacing_mm, other.spacing_mm, within=SAME_MM)
        and _close(one.orientation, other.orientation, within=SAME_DIRECTION)
        and (one.position is None) == (other.position is None)
    )


def _close(
    one: tuple[float, ...] | None, other: tuple[float, ...] | None, *, within: float
) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= within for a, b in zip(one, other, strict=True))


def _told_apart(frames: Sequence[Placed], group: list[int]) -> list[list[int]]:
    """Frames that share their places, by what tells them apart, or by which comes first at each.

    Frames that all lie at one place are a film of it, and stay together.
    """
    if any(frames[i].position is None for i in group):
        return [group]
    if len({_place(frames[i]) for i in group}) in (1, len(group)):
        return [group]
    for by in range(max(len(frames[i].told_apart_by) for i in group)):
        parts: dict[Hashable, list[int]] = defaultdict(list)
        for index in group:
            parts[frames[index].told_apart_by[by : by + 1]].append(index)
        if len(parts) > 1 and len({len(part) for part in parts.values()}) == 1:
            return [each for part in parts.values() for each in _told_apart(frames, part)]
    return _by_turns(frames, group)


def _by_turns(frames: Sequence[Placed], group: list[int]) -> list[list[int]]:
    """The first frame of every place, then the second, …; one stack when places differ in number.

    Then something is there twice, not everything.
    """
    places: dict[Hashable, list[int]] = defaultdict(list)
    for index in sorted(group, key=lambda i: frames[i].number):
        places[_place(frames[index])].append(index)
    counts = {len(there) for there in places.values()}
    if len(counts) != 1:
        return [group]
    return [list(turn) for turn in zip(*places.values(), strict=True)]


def _place(frame: Placed) -> Hashable:
    assert frame.position is not None, "only frames with a position share one"
    # Adding zero makes -0.0 the same place as 0.0.
    return tuple(round(value, _DECIMALS) + 0.0 for value in frame.position)


def _volume(frames: Sequence[Placed], stack: list[int], *, is_split: bool) -> Volume:
    is_placed = all(frames[i].position is not None for i in stack)
    oddities = [Oddity.SPLIT] if is_split else []
    if any(frames[i].is_localizer for i in stack):
        oddities.append(Oddity.LOCALIZER)
    if not is_placed:
        if len(stack) > 1:
            oddities.append(Oddity.UNPLACED)
        return Volume(tuple(sorted(stack, key=lambda i: frames[i].number)), None, tuple(oddities))
    along = {i: _along_normal(frames[i]) for i in stack}
    ordered = sorted(stack, key=lambda i: (round(along[i], 6), frames[i].number))
    steps = np.diff([along[i] for i in ordered])
    spacing, odd_steps = _judged(steps)
    if len(ordered) > 1 and _is_tilted(frames[ordered[0]], frames[ordered[-1]]):
        oddities.append(Oddity.TILTED)
    return Volume(tuple(ordered), spacing, (*oddities, *odd_steps))


def _along_normal(frame: Placed) -> float:
    """Distance in mm along the slices' normal (PS3.3 C.7.6.2.1.1)."""
    assert frame.position is not None, "only frames with a position are ordered by it"
    return float(_normal(frame) @ np.array(frame.position))


def _normal(frame: Placed) -> npt.NDArray[np.float64]:
    assert frame.orientation is not None, "a position has an orientation"
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def _judged(steps: npt.NDArray[np.float64]) -> tuple[float | None, list[Oddity]]:
    """The distance of neighbours where all have the same, and what is odd about the distances."""
    if steps.size == 0:
        return None, []
    apart = steps[steps > SAME_MM]
    odd = [Oddity.REPEATED] if apart.size < steps.size else []
    if apart.size == 0:
        return None, odd
    usual = float(np.median(apart))
    off = np.abs(apart - usual) >= max(SAME_MM, UNEVEN * usual)
    if (apart[off] > A_GAP * usual).any():
        odd.append(Oddity.GAPS)
    if (apart[off] <= A_GAP * usual).any():
        odd.append(Oddity.UNEVEN)
    return (None if odd else usual), odd


def _is_tilted(first: Placed, last: Placed) -> bool:
    assert first.position is not None, "only frames with positions are compared"
    assert last.position is not None, "only frames with positions are compared"
    way = np.array(last.position) - np.array(first.position)
    along = abs(float(_normal(first) @ way))
    aside = float(np.sqrt(max(0.0, float(way @ way) - along**2)))
    return along > SAME_MM and float(np.degrees(np.arctan2(aside, along))) > TILTED_DEGREES
