"""What a run leaves on the disk: whole files only, and a state from which it goes on.

A file is written beside its name, forced to the disk and renamed, so that whoever looks, or comes
after a power cut, finds the last whole one. Where the disk is full the part is removed, the last
one stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, Final

import torch

FORMAT: Final = 1


class StateError(ValueError):
    """A kept state that cannot be read, or is of another run."""


class NotKept(ValueError):
    """The disk refused what was to be kept; what was kept before is whole."""


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace ``path`` by what ``write`` writes, entirely or not at all; raises NotKept."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _force_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError where a write fails
        part.unlink(missing_ok=True)
        raise NotKept(f"{path} could not be written: {_reason(error)}") from error


def save_state(path: Path, state: Mapping[str, Any], *, identity: Mapping[str, Any]) -> None:
    """Keep a state (tensors, numbers and text) with what it belongs to."""
    content = {"format": FORMAT, "identity": dict(identity), "state": dict(state)}
    write_whole(path, lambda file: torch.save(content, file))


def load_state(path: Path, *, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a run of that identity; raises StateError, which says how they differ."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise StateError(f"{path} is no state of a run: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StateError(f"{path} is no state of a run")
    kept = content["identity"]
    if other := sorted(key for key in identity if kept.get(key) != identity[key]):
        raise StateError(
            f"{path} is of another run, which differs in "
            + "; ".join(f"{key}: {kept.get(key)!r} there, {identity[key]!r} here" for key in other)
        )
    state: dict[str, Any] = content["state"]
    return state


def _force_folder(folder: Path) -> None:
    # A rename lasts only when its folder has reached the disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    cause = error.__context__
    return str(cause) if isinstance(error, RuntimeError) and cause is not None else str(error)
