"""A story that a browser's script tells, and what it leaves: pictures, or evidence of a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

# Where the guide's pictures are kept, when they are to be made anew (make screenshots).
PICTURES = "DELINEATE_PICTURES"
REPOSITORY = Path(__file__).parents[2]


async def play(
    script: str,
    told: Mapping[str, Any],
    *,
    folder: Path,
    pauses: Mapping[str, Callable[[], Awaitable[None]]],
) -> None:
    """Run a script of this folder; where it pauses, do what that asks for, and let it go on.

    It pauses once at each of ``pauses``, in their order, and ends without an error on a page.
    """
    seen = []
    with (
        (folder / "story.err").open("w+") as errors,
        subprocess.Popen(
            ["node", str(Path(__file__).with_name(script)), json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as story,
    ):
        assert story.stdin is not None
        assert story.stdout is not None
        try:
            for line in story.stdout:
                at = json.loads(line)
                assert at["at"] != "page error", at
                seen.append(at["at"])
                if at["at"] in pauses:
                    await pauses[at["at"]]()
                    story.stdin.write("go\n")
                    story.stdin.flush()
            story.wait()
        finally:
            story.kill()
            story.wait()
            if story.returncode != 0:
                keep_evidence(folder)
        errors.seek(0)
        assert story.returncode == 0, errors.read()
    assert seen == [*pauses, "end"]


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
