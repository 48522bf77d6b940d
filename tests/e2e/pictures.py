"""What a story leaves: pictures for the guide, and evidence of a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

# Where the guide's pictures are kept, when they are to be made anew (make screenshots).
PICTURES = "DELINEATE_PICTURES"
REPOSITORY = Path(__file__).parents[2]


def keep_pictures(shots: Path, names: Iterable[str]) -> None:
    """Keep those of a story that the guide shows, where somebody has asked for them."""
    if PICTURES not in os.environ:
        return
    kept = Path(os.environ[PICTURES])
    kept.mkdir(parents=True, exist_ok=True)
    for name in names:
        (shot,) = [path for path in shots.glob("*.png") if path.stem.lstrip("0123456789-") == name]
        with Image.open(shot) as picture:
            # 256 colours: a third of the size, and no difference to the eye.
            picture.convert("RGB").quantize(256).save(kept / f"{name}.png", optimize=True)


def keep_evidence(folder: Path) -> None:
    """Pictures and logs of a story that failed, into build/story."""
    kept = REPOSITORY / "build" / "story"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder / "shots", kept / "shots", dirs_exist_ok=True)
    shutil.copytree(folder / "var" / "log", kept / "log", dirs_exist_ok=True)
