"""`mlworker evaluate`: how good models are on masks that they have not learnt."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlworker.contract.ranking import STRATEGIES
from mlworker.inference.cache import decoding_part, frame_of
from mlworker.inference.encoder import Encoding, packed
from mlworker.model.adapter import drop_adapters
from mlworker.model.checkpoint import Checkpoint, CheckpointError, digest_of_file
from mlworker.training import active_learning
from mlworker.training.asking import PROTOCOLS, Model
from mlworker.training.evaluate import MOST_CLICKS, Evaluation, Plan, evaluate, side_by_side
from mlworker.training.metrics import PIXELS, TOLERANCE, Spacing
from mlworker.training.prompts import PromptFile
from mlworker.training.report import About, in_words, write_report
from mlworker.training.rivals import RIVALS
from mlworker.training.samples import DataError, Sample, read_label2image


class SpacingMissing(DataError):
    """Figures in millimetres need the size of every image's pixels."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--pairs", type=Path, required=True, help="label2image_test.json: mask -> image"
    )
    parser.add_argument(
        "--root", type=Path, required=True, help="folder that the names in it are relative to"
    )
    parser.add_argument(
        "--prompts",
        default="0",
        metavar="FILE|SEED",
        help="a file of prompts, or the seed that they are sampled with (default: 0)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        action="append",
        help="several are evaluated side by side",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument(
        "--adapters",
        choices=("on", "off"),
        action="append",
        help="both may be given, to be compared (default: as the checkpoint has them)",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N masks")
    parser.add_argument("--rivals", action="store_true", help="also what a box gives by itself")
    parser.add_argument(
        "--protocols",
        type=lambda text: tuple(text.split(",")),
        default=PROTOCOLS,
        metavar=",".join(PROTOCOLS),
    )
    parser.add_argument("--clicks", type=int, default=MOST_CLICKS, help="of a session, at most")
    parser.add_argument(
        "--spacing",
        type=Path,
        metavar="FILE",
        help="JSON, image -> [x, y] in millimetres: distances are in them instead of pixels",
    )
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="of surface Dice, in px or mm"
    )
    parser.add_argument(
        "--apart",
        action="append",
        default=[],
        metavar="LABEL",
        help="a label whose figures stand apart, such as vessels, which no box describes",
    )
    parser.add_argument(
        "--small",
        choices=("stretched", "padded"),
        default="stretched",
        help="images smaller than the model's square (published evaluation: padded)",
    )
    parser.add_argument("--seed", type=int, default=0, help="where --prompts is a file")
    simulation = parser.add_argument_group(
        "which slices to annotate next",
        "with --simulate-active-learning: fine-tunes the checkpoint again and again on what each"
        " strategy would have had annotated, and writes learning curves instead of a report",
    )
    usual = active_learning.Plan()
    simulation.add_argument("--simulate-active-learning", action="store_true")
    simulation.add_argument(
        "--strategies",
        type=lambda text: tuple(text.split(",")),
        default=usual.strategies,
        metavar=",".join(STRATEGIES),
    )
    for name, what in (
        ("rounds", "in which slices are chosen"),
        ("per-round", "slices of each round"),
        ("seeds", "times that all is done with other subjects and another start"),
        ("steps", "of each fine-tuning"),
    ):
        simulation.add_argument(
            f"--{name}",
            type=_count,
            default=getattr(usual, name.replace("-", "_")),
            metavar="N",
            help=f"{what} (default: %(default)s)",
        )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, write the report, and say the figures."""
    root: Path = arguments.root
    samples = read_label2image(arguments.pairs, root=root)[: arguments.limit]
    if arguments.simulate_active_learning:
        return _simulate(arguments, samples)
    from_file = not arguments.prompts.isdigit()
    seed = arguments.seed if from_file else int(arguments.prompts)
    plan = Plan(
        protocols=arguments.protocols,
        rivals=tuple(RIVALS) if arguments.rivals else (),
        clicks=arguments.clicks,
        seed=seed,
        tolerance=arguments.tolerance,
        apart=tuple(arguments.apart),
        small=arguments.small,
    )
    prompts = PromptFile(Path(arguments.prompts), root=root) if from_file else None
    spacing = _spacing(arguments.spacing, samples, root=root) if arguments.spacing else None
    done: list[Evaluation] = []
    models: dict[str, dict[str, Any]] = {}
    for path, adapters in _variants(arguments.checkpoint, arguments.adapters or [None]):
        model, described = _model(path, adapters=adapters, taken=models)
        models[model.name] = described
        done.append(
            evaluate(
                model,
                samples,
                # Rivals know no model: once is enough.
                plan=replace(plan, rivals=() if done else plan.rivals),
                prompts=prompts,
                root=root,
                spacing=spacing or (lambda sample: PIXELS),
                progress=_progress(model.name),
            )
        )
    evaluation = side_by_side(done)
    about = About(
        pairs=arguments.pairs.name,
        prompts=f"from {Path(arguments.prompts).name}" if from_file else f"sampled, seed {seed}",
        unit="mm" if spacing else "px",
        plan=plan,
        models=models,
    )
    print(in_words(write_report(arguments.out, evaluation, about=about)))
    for excluded in evaluation.excluded:
        print(f"left out: {excluded.error}: {excluded.reason}", file=sys.stderr)
    print(f"{arguments.out / 'report.html'}")
    return 0


def _simulate(arguments: argparse.Namespace, samples: list[Sample]) -> int:
    """Learning curves of the strategies."""
    if len(arguments.checkpoint) > 1:
        raise ValueError("a simulation fine-tunes one checkpoint")
    (parent,) = arguments.checkpoint
    plan = active_learning.Plan(
        strategies=arguments.strategies,
        rounds=arguments.rounds,
        per_round=arguments.per_round,
        seeds=arguments.seeds,
        steps=arguments.steps,
    )
    points = active_learning.simulate(parent, samples, plan=plan, progress=_say_point)
    about = {"pairs": arguments.pairs.name, **active_learning.about_parent(parent)}
    active_learning.write_curves(arguments.out, points, plan=plan, about=about)
    print(active_learning.in_words(points))
    print(f"{arguments.out / 'curves.html'}")
    return 0


def _say_point(point: active_learning.Point) -> None:
    print(
        f"seed {point.seed}, {point.strategy}, {point.slices} slices:"
        f" Dice {point.box:.3f} by box, {point.point:.3f} by a point",
        file=sys.stderr,
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least one is needed")
    return number


def _variants(checkpoints: list[Path], adapters: list[str | None]) -> list[tuple[Path, str | None]]:
    return [(path, each) for path in checkpoints for each in dict.fromkeys(adapters)]


def _model(
    path: Path, *, adapters: str | None, taken: dict[str, Any]
) -> tuple[Model, dict[str, Any]]:
    checkpoint = Checkpoint(path)
    has = checkpoint.metadata.adapters
    if adapters == "on" and not has:
        raise CheckpointError(f"{path.name} has no adapters that could be on")
    dropped = has and adapters == "off"
    name = f"{path.stem} without adapters" if dropped else path.stem
    while name in taken:
        name += " (again)"
    encoder = checkpoint.image_encoder()
    if dropped:
        drop_adapters(encoder)
    model = Model(name, Encoding(packed(encoder), frame_of(checkpoint)), decoding_part(checkpoint))
    about = checkpoint.metadata.model_dump() | {
        "digest": digest_of_file(path),
        "adapters": has and not dropped,
    }
    return model, about


def _spacing(path: Path, samples: list[Sample], *, root: Path) -> Callable[[Sample], Spacing]:
    """Raises SpacingMissing: a mean over pixels and millimetres would mean nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {root / image: (float(x), float(y)) for image, (x, y) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SpacingMissing(f"{path} does not map images to two millimetres: {error}") from error
    for sample in samples:
        sides = known.get(sample.image, ())
        if not sides or not all(math.isfinite(side) and side > 0 for side in sides):
            raise SpacingMissing(f"{path.name} has no spacing of {sample.image}")
    return lambda sample: known[sample.image]


def _progress(name: str) -> Callable[[int, int], None]:
    if not sys.stderr.isatty():
        return lambda done, of: None

    def say(done: int, of: int) -> None:
        end = "\n" if done == of else ""
        print(f"\r{name}: image {done}/{of}", end=end, file=sys.stderr, flush=True)

    return say
