"""What ten minutes of fine-tuning on twenty slices give, on patients that were never seen.

    python -m benchmarks.adapting DATA [--checkpoint FILE] [--collection NAME] [--minutes M]
                                  [--rate R] [--trainable T] [--blends B …]

DATA is a folder that `mlworker curate` wrote. Twenty slices are drawn from the training patients of
one collection, the checkpoint is fine-tuned on them by `mlworker train`, and what was learnt is
mixed with the checkpoint by each of the blends (1: all of it). All of them are put side by side on
that collection's validation masks by `mlworker evaluate`. Prints a table in Markdown; intervals are
over patients.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from mlworker.model.checkpoint import Checkpoint, pack
from mlworker.training.samples import Sample, by_image, read_image2label
from mlworker.training.summary import Mean

BTCV_UNSEEN: Final = Path("mlworker/recipes/without_btcv.safetensors")
# All weights of a small model, and images that are changed: there are twenty.
SETTINGS: Final = {
    "augment": True,
    "precision": "bfloat16",
    "warm_up": 20,
    "epochs": 1_000,
    "halved_after": [],
}
PROTOCOLS: Final = ("box", "box-jittered", "1-point", "5-points", "clicks")


def main() -> None:
    """Draw, tune, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=BTCV_UNSEEN)
    parser.add_argument("--collection", default="btcv_imis")
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--trainable", default="everything")
    parser.add_argument("--blends", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        drawn = _listed(arguments.data, "train", arguments.collection, most=arguments.slices)
        judged = _listed(arguments.data, "val", arguments.collection)
        subjects = {sample.subject for sample in drawn}
        print(f"{len(by_image(drawn))} slices of {len(subjects)} patients, {len(drawn)} masks")
        steps = _tune(arguments, drawn, out=out)
        print(f"{arguments.minutes:g} minutes, {steps} steps\n")
        tuned = [_blended(arguments.checkpoint, out, share=share) for share in arguments.blends]
        results = _evaluated(arguments, judged, tuned=tuned, out=out)
        _print(results, models=[path.stem for path in (arguments.checkpoint, *tuned)])


def _listed(data: Path, split: str, collection: str, *, most: int | None = None) -> list[Sample]:
    """The masks of a collection, of all images or of so many that are drawn."""
    samples = read_image2label(data / f"image2label_{split}.json", root=data)
    images = by_image(sample for sample in samples if sample.collection == collection)
    chosen = sorted(images)
    if most is not None:
        chosen = random.Random(0).sample(chosen, min(most, len(chosen)))
    return [sample for image in chosen for sample in images[image]]


def _tune(arguments: argparse.Namespace, samples: list[Sample], *, out: Path) -> int:
    """Fine-tune for the minutes given; the number of steps."""
    data: Path = arguments.data
    content = {
        image.relative_to(data).as_posix(): [s.mask.relative_to(data).as_posix() for s in group]
        for image, group in by_image(samples).items()
    }
    (out / "list.json").write_text(json.dumps(content))
    settings = SETTINGS | {
        "trainable": arguments.trainable,
        "learning_rate": arguments.rate,
        "seed": arguments.seed,
    }
    (out / "settings.json").write_text(json.dumps(settings))
    command = [
        *(sys.executable, "-m", "mlworker.cli", "train"),
        *("--data", str(out / "list.json"), "--root", str(data)),
        *("--checkpoint", str(arguments.checkpoint), "--out", str(out / "tuned")),
        *("--settings", str(out / "settings.json")),
    ]
    events = out / "tuned/events.jsonl"
    with subprocess.Popen(command) as process:
        while not events.exists() and process.poll() is None:
            time.sleep(0.1)
        try:
            process.wait(arguments.minutes * 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it keeps everything, and ends
    told = [json.loads(line) for line in events.read_text().splitlines()]
    return max(int(event.get("step", 0)) for event in told)


def _blended(parent: Path, out: Path, *, share: float) -> Path:
    """What `mlworker train` would have kept with the setting ``blend``."""
    tuned = out / "tuned/last.safetensors"
    before, learnt = (load_file(path) for path in (parent, tuned))
    state = {key: torch.lerp(before[key].float(), learnt[key], share) for key in before}
    path = out / f"blend {share:g}.safetensors"
    path.write_bytes(pack(state, Checkpoint(tuned).metadata))
    return path


def _evaluated(
    arguments: argparse.Namespace, samples: list[Sample], *, tuned: list[Path], out: Path
) -> dict[str, Any]:
    data: Path = arguments.data
    pairs = {
        s.mask.relative_to(data).as_posix(): s.image.relative_to(data).as_posix() for s in samples
    }
    (out / "pairs.json").write_text(json.dumps(pairs))
    command = [
        *(sys.executable, "-m", "mlworker.cli", "evaluate"),
        *("--pairs", str(out / "pairs.json"), "--root", str(data), "--out", str(out / "report")),
        *(word for p in (arguments.checkpoint, *tuned) for word in ("--checkpoint", str(p))),
        *("--protocols", ",".join(PROTOCOLS), "--clicks", "10"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results: dict[str, Any] = json.loads((out / "report/results.json").read_text())
    return results


def _print(results: dict[str, Any], *, models: list[str]) -> None:
    print(f"| Dice | {' | '.join(models)} |\n|{'---|' * (len(models) + 1)}")
    for protocol in PROTOCOLS[:-1]:
        dice = {
            figure["model"]: Mean(**figure["measures"]["dice"])
            for figure in results["figures"]
            if (figure["protocol"], figure["by"]) == (protocol, "masks")
        }
        print(f"| {protocol} | {' | '.join(str(dice[model]) for model in models)} |")
    clicks = {c["model"]: c for c in results["clicks"] if c["by"] == "masks"}
    for target in ("80", "85"):
        needed = [str(Mean(**clicks[model]["to_dice"][target])) for model in models]
        print(f"| clicks to Dice 0.{target}, of ten | {' | '.join(needed)} |")


if __name__ == "__main__":
    main()
