"""An evaluation as files: results.json, masks.csv, prompts.json and report.html.

The page is one file without a script, a font or a picture from elsewhere: plots are SVG in it, and
the worst cases PNG. What is in results.json is described in docs/evaluation.md and is stable:
``format`` counts up when a reader would have to change.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mlworker.training.asking import CLICKS, Speed
from mlworker.training.evaluate import Evaluation, Plan, Row
from mlworker.training.page import page
from mlworker.training.prompts import write_prompts
from mlworker.training.summary import MEASURES, Summary, summarise

FORMAT: Final = 1
COLUMNS: Final = (
    "model",
    "protocol",
    "mask",
    "image",
    "label",
    "modality",
    "collection",
    "subject",
    *MEASURES,
    "predicted_iou",
    "dice_after_clicks",
)
Unit = Literal["px", "mm"]


@dataclass(frozen=True)
class About:
    """What the figures are of, in words and identities."""

    pairs: str  # the list's name
    prompts: str  # "sampled with seed 0", or the file's name
    unit: Unit  # of HD95 and of surface Dice's tolerance
    plan: Plan
    models: dict[str, dict[str, Any]]  # by name: the checkpoint's metadata and digest


@dataclass(frozen=True)
class Published:
    """Mean Dice that a paper gives, by protocol."""

    model: str
    data: str
    dice: dict[str, float]


# SAM-Med2D, arXiv 2308.16184: of other images, so beside our figures and not against them.
PUBLISHED: Final = (
    Published(
        "SAM-Med2D, 256 px",
        "the paper's test set",
        {"box": 0.7930, "1-point": 0.7001, "3-points": 0.7635, "5-points": 0.7868},
    ),
    Published(
        "SAM, 256 px",
        "the paper's test set",
        {"box": 0.6163, "1-point": 0.1894, "3-points": 0.2828, "5-points": 0.3747},
    ),
    Published(
        "SAM, 1024 px",
        "the paper's test set",
        {"box": 0.7449, "1-point": 0.3688, "3-points": 0.4200, "5-points": 0.4757},
    ),
    Published("SAM-Med2D, 256 px", "nine unseen sets", {"box": 0.8488, "1-point": 0.7663}),
    Published("SAM, 1024 px", "nine unseen sets", {"box": 0.7349, "1-point": 0.2088}),
)


def write_report(folder: Path, evaluation: Evaluation, *, about: About) -> Summary:
    """Write the four files into a folder, which is made; gives back the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(evaluation.rows, seed=about.plan.seed, apart=about.plan.apart)
    write_rows(folder / "masks.csv", evaluation.rows)
    write_prompts(folder / "prompts.json", evaluation.prompts)
    results = results_of(evaluation, summary, about=about)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text, encoding="utf-8")
    html = page(evaluation, summary, results=results)
    (folder / "report.html").write_text(html, encoding="utf-8")
    return summary


def results_of(evaluation: Evaluation, summary: Summary, *, about: About) -> dict[str, Any]:
    """What results.json holds."""
    first = [row for row in evaluation.rows if row.model == evaluation.rows[0].model]
    return {
        "format": FORMAT,
        "pairs": about.pairs,
        "prompts": about.prompts,
        "unit": about.unit,
        "plan": asdict(about.plan),
        "models": about.models,
        "masks": len({row.mask for row in first}),
        "images": len({row.image for row in first}),
        "figures": [asdict(figure) for figure in summary.figures],
        "clicks": [asdict(clicks) for clicks in summary.clicks],
        "differences": [asdict(difference) for difference in summary.differences],
        "speed": {name: rates(speed) for name, speed in evaluation.speed.items()},
        "excluded": [asdict(excluded) for excluded in evaluation.excluded],
        "published": [asdict(published) for published in PUBLISHED],
    }


def rates(speed: Speed) -> dict[str, float]:
    """What was done in a second, and the seconds themselves."""
    return {
        **asdict(speed),
        "images_per_s": speed.images / max(speed.encode_s, 1e-9),
        "prompts_per_s": speed.prompts / max(speed.decode_s, 1e-9),
        "masks_per_s": speed.masks / max(speed.total_s, 1e-9),
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """masks.csv: a line per mask, protocol and model."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            values = [getattr(row, name) for name in COLUMNS[:8]]
            scores = [f"{value:.6g}" for value in asdict(row.scores).values()]
            iou = "" if row.predicted_iou is None else f"{row.predicted_iou:.6g}"
            after = " ".join(f"{value:.4f}" for value in row.dice_after)
            writer.writerow([*values, *scores, iou, after])


def in_words(summary: Summary) -> str:
    """A few lines for a terminal: Dice over all masks, and the clicks needed."""
    lines = [f"{'model':<28} {'protocol':<14} {'Dice over masks':<24} over collections"]
    overall = {
        (f.model, f.protocol, f.by): f.measures["dice"]
        for f in summary.figures
        if f.by in ("masks", "collections")
    }
    for (model, protocol, by), mean in overall.items():
        if by == "masks":
            over = overall[model, protocol, "collections"]
            lines.append(f"{model:<28} {protocol:<14} {mean!s:<24} {over}")
    for clicks in summary.clicks:
        if clicks.by == "masks":
            needed = ", ".join(f"NoC@{to} {mean}" for to, mean in clicks.to_iou.items())
            lines.append(f"{clicks.model:<28} {CLICKS:<14} {needed} (IoU)")
    return "\n".join(lines)
