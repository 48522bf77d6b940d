"""A model's card: what it is, what it learnt from, how it was judged, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from delineate.learning.gate import Judgement
from delineate.learning.models import Part, TrainingRun
from delineate.registry.models import ModelVersion


def card(model: ModelVersion, run: TrainingRun | None, *, answered: Sequence[str]) -> str:
    """The card of a model; ``run``: the one that made it, ``answered``: when it did, in words."""
    lines = [
        f"# {model.name}",
        "",
        f"- Digest: `{model.digest}`",
        f"- Made: {model.created_at:%Y-%m-%d %H:%M} UTC",
        f"- Architecture: {model.variant}, {model.image_size} px, "
        f"{'with' if model.adapters else 'without'} adapters",
        f"- Parent: {f'`{model.parent}`' if model.parent else 'none'}",
        f"- Origin: {model.origin or 'unknown'}",
        "",
        "## Use",
        "",
        "Proposes masks of structures in images like those it learnt from, for a person to "
        "correct. It is no medical device, and its masks are no diagnosis.",
        "",
        "## Data",
        "",
    ]
    if run is None or run.snapshot is None:
        lines.append("It was not made here: see its origin.")
    else:
        for part, words in ((Part.TRAIN, "Learnt from"), (Part.HELD_OUT, "Judged by")):
            items = run.snapshot.items.filter(part=part)
            subjects = items.values("pseudonym").distinct().count()
            labels = items.order_by("label").values_list("label", flat=True).distinct()
            lines.append(
                f"- {words}: {items.count()} masks of {subjects} subjects "
                f"({', '.join(labels) or 'no label'})"
            )
        lines += [
            f"- Digest of the data: `{run.snapshot.digest}`",
            f"- Nearly equal slices across the two: {len(run.snapshot.near_duplicates)}",
            "",
            "## Training",
            "",
            *(f"- {name}: {value}" for name, value in sorted(run.recipe.items())),
            f"- Steps: {run.step}, in {run.seconds:.0f} s",
            "",
            "## Judgement",
            "",
            *_judged(run),
        ]
    lines += ["", "## Answered", "", *([f"- {each}" for each in answered] or ["Never yet."]), ""]
    return "\n".join(lines)


def _judged(run: TrainingRun) -> list[str]:
    if not run.judgement:
        return ["It was not judged."]
    judgement = Judgement.model_validate(run.judgement)
    against = run.opponent.name if run.opponent else "nobody"
    rows = [
        f"| {each.label} | {each.masks} | {each.subjects} | {each.opponent_dice:.3f} | "
        f"{each.candidate_dice:.3f} | {each.difference:+.3f}{_interval(each.low, each.high)} | "
        f"{each.opponent_noc['85']:.1f} → {each.candidate_noc['85']:.1f} | "
        f"{each.opponent_noc['90']:.1f} → {each.candidate_noc['90']:.1f} |"
        for each in judgement.labels
    ]
    return [
        f"Against {against}, on the same held-out masks with the same prompts. "
        f"{judgement.sentence}",
        "",
        "| label | masks | subjects | Dice before | Dice | difference | NoC@85 | NoC@90 |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
