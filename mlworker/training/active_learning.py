"""Which strategy makes a model better with the fewest annotated slices: simulated on labelled data.

Of each seed: subjects are split into those that are annotated and those that are held out, and a
few slices of the former are annotated at random. Then, round by round, the parent's decoder is
fine-tuned anew on all that is annotated, asked for the held-out masks, and the next slices are
chosen by the rule that the server uses (mlworker.contract.ranking). Within a seed all strategies
have the same subjects, the same start, and the same masks to be judged by.

The encoder does not learn, so that each image is encoded once for all of it.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from mlworker.contract.masks import dice
from mlworker.contract.ranking import ASK_THE_MODEL, STRATEGIES, Annotated, Candidate, Strategy
from mlworker.contract.ranking import rank as choose
from mlworker.inference.encoder import Encoding
from mlworker.inference.geometry import Frame, Rgb
from mlworker.inference.predictor import Predictor
from mlworker.inference.scoring import features_of, score
from mlworker.model.checkpoint import Checkpoint, digest_of_file
from mlworker.model.sam_med2d import SamMed2D
from mlworker.training.asking import Model, Session, Target, answers
from mlworker.training.dataset import Dataset
from mlworker.training.page import document
from mlworker.training.pictures import read_image, read_mask
from mlworker.training.plots import Series, legend, line_plot
from mlworker.training.prompts import randomness_of, sample_prompts
from mlworker.training.samples import UNKNOWN, DataError, Sample, by_image
from mlworker.training.settings import Settings
from mlworker.training.step import Part, Trainer
from mlworker.training.summary import Mean

FORMAT: Final = "delineate-active-learning"
BASELINE: Final[Strategy] = "random"
Asked = Literal["box", "point"]
_PROTOCOLS: Final[dict[str, Asked]] = {"box": "box", "1-point": "point"}
Item = TypeVar("Item")
_SPLIT, _DRAWN, _START, _JUDGED, _CHOSEN, _TRAINED = range(6)  # what the seed is drawn for


class TooFewSubjects(DataError):
    """Nobody can be held out, or the subjects are not known."""


@dataclass(frozen=True)
class Plan:
    """How a simulation is done; the same plan on the same data gives the same curves."""

    strategies: tuple[Strategy, ...] = STRATEGIES
    rounds: int = 4  # in which slices are chosen, after those of the start
    per_round: int = 4  # slices of each, and of the start
    seeds: int = 5
    held_out: float = 0.4  # share of the subjects
    most_slices: int = 100  # that may be chosen, drawn by the seed: each costs a scoring a round
    most_masks: int = 60  # that are judged by, likewise
    # Of a fine-tuning: small, because there are a hundred of them. Not smaller: 12 steps without
    # corrections, at twice the rate, cost the parent a tenth of its Dice by box.
    steps: int = 24
    masks: int = 3  # of each of a step's two images
    corrections: int = 2  # of the decoder, after each step's first
    learning_rate: float = 1e-4  # at its highest
    blend: float = 0.75  # as the server's runs keep it

    def rate(self, step: int) -> float:
        """The learning rate: rising, then falling to nothing, because so few steps end anywhere."""
        rising = min(1.0, (step + 1) / (1 + self.steps // 5))
        return self.learning_rate * rising * (1 - step / self.steps)

    def __post_init__(self) -> None:
        unknown = sorted({*self.strategies} - {*STRATEGIES})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not one of {', '.join(STRATEGIES)}")
        if BASELINE not in self.strategies:
            raise ValueError(f"strategies are judged against {BASELINE}, which is not among them")
        for name in ("rounds", "per_round", "seeds", "steps", "most_masks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: a simulation needs at least one")


@dataclass(frozen=True)
class Point:
    """How good the model is after a round: mean Dice of the held-out masks."""

    seed: int
    strategy: Strategy
    round: int  # 0: the parent, 1: the start's slices, which all strategies share
    slices: int  # annotated
    masks: int  # on them
    box: float
    point: float


@dataclass(frozen=True)
class Verdict:
    """A strategy over all rounds in which it had chosen, in Dice, and its lead over chance."""

    strategy: Strategy
    asked: Asked
    mean: Mean  # over seeds
    last: Mean  # of the last round alone
    lead: Mean  # less chance, of the same seed


def simulate(
    parent: Path,
    samples: Sequence[Sample],
    *,
    plan: Plan,
    progress: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Learning curves of all strategies and seeds; raises DataError, CheckpointError."""
    if any(sample.subject == UNKNOWN for sample in samples):
        raise TooFewSubjects("the subjects of the masks must be known: give a curated folder")
    if len({sample.subject for sample in samples}) < 2:
        raise TooFewSubjects("all masks are of one subject: nobody can be held out")
    learner = _Learner(Checkpoint(parent), plan)
    points: list[Point] = []
    for seed in range(plan.seeds):
        for point in _of_seed(learner, samples, seed=seed, plan=plan):
            points.append(point)
            progress(point)
    return points


def verdicts(points: Sequence[Point]) -> list[Verdict]:
    """Each strategy's figures, in the order of the strategies."""
    chosen = [point for point in points if point.round > 1]
    last = max(point.round for point in chosen)
    found = []
    for strategy in dict.fromkeys(point.strategy for point in chosen):
        for asked in _PROTOCOLS.values():
            own = _by_seed(chosen, strategy, asked)
            chance = _by_seed(chosen, BASELINE, asked)
            at_last = _by_seed([p for p in chosen if p.round == last], strategy, asked)
            found.append(
                Verdict(
                    strategy,
                    asked,
                    mean=interval(list(own.values())),
                    last=interval(list(at_last.values())),
                    lead=interval([own[seed] - chance[seed] for seed in own]),
                )
            )
    return found


def interval(values: Sequence[float]) -> Mean:
    """The mean with Student's 95 % interval: of five seeds a bootstrap would be too sure."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Mean(mean)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Mean(mean, mean - half, mean + half)


def write_curves(
    folder: Path, points: Sequence[Point], *, plan: Plan, about: dict[str, Any]
) -> None:
    """curves.csv, curves.json and curves.html into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)])
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
    content = {
        "format": FORMAT,
        "about": about,
        "plan": asdict(plan),
        "verdicts": [asdict(verdict) for verdict in verdicts(points)],
        "points": [asdict(point) for point in points],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "curves.json").write_text(text, encoding="utf-8")
    (folder / "curves.html").write_text(_page(points, plan=plan), encoding="utf-8")


def about_parent(parent: Path) -> dict[str, Any]:
    """What curves.json says of the model that is fine-tuned."""
    return {"checkpoint": parent.stem, "digest": digest_of_file(parent)}


def in_words(points: Sequence[Point]) -> str:
    """A table in Markdown: Dice of the held-out masks, means over seeds."""
    first = [point for point in points if point.round == 0]
    lines = ["| strategy | asked by | over all rounds | last round | lead over chance |"]
    lines.append("|---|---|---|---|---|")
    for asked in _PROTOCOLS.values():
        parent = interval([getattr(point, asked) for point in first])
        lines.append(f"| nothing annotated | {asked} | {parent} | | |")
    for verdict in verdicts(points):
        lead = "" if verdict.strategy == BASELINE else _signed(verdict.lead)
        lines.append(
            f"| {verdict.strategy} | {verdict.asked} | {verdict.mean} | {verdict.last} | {lead} |"
        )
    return "\n".join(lines)


def _by_seed(points: Sequence[Point], strategy: Strategy, asked: Asked) -> dict[int, float]:
    """The mean over rounds."""
    values: dict[int, list[float]] = defaultdict(list)
    for point in points:
        if point.strategy == strategy:
            values[point.seed].append(getattr(point, asked))
    return {seed: float(np.mean(each)) for seed, each in values.items()}


def _signed(mean: Mean) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.mean:+.3f}"
    return f"{mean.mean:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]"


def _page(points: Sequence[Point], *, plan: Plan) -> str:
    colours = iter(("s0", "s1", "s2", "s3"))
    series = [
        Series(name, "rival" if name == BASELINE else next(colours), "disc", {})
        for name in plan.strategies
    ]
    sections = [f"<header><h1>What to annotate next</h1>{legend(series)}</header>"]
    for asked in _PROTOCOLS.values():
        rounds = range(1, max(point.round for point in points) + 1)
        lines = [
            (
                each,
                [
                    interval([getattr(p, asked) for p in points if _is(p, each.name, number)])
                    for number in rounds
                ],
            )
            for each in series
        ]
        title = f"Dice of held-out masks, asked by {asked}"
        low, high = _around([mean for _, means in lines for mean in means])
        plot = line_plot(
            lines, title=title, x_title=f"rounds of {plan.per_round} slices", low=low, high=high
        )
        sections.append(f"<section><h2>{escape(title)}</h2>{plot}</section>")
    return document("What to annotate next", "".join(sections))


def _is(point: Point, strategy: str, number: int) -> bool:
    return point.strategy == strategy and point.round == number


def _around(means: Sequence[Mean]) -> tuple[float, float]:
    """Tenths around all of them: curves that lie together are told apart."""
    values = [v for m in means for v in (m.mean, m.low, m.high) if v is not None]
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10
    return max(0.0, low), min(1.0, max(high, low + 0.1))


def _of_seed(
    learner: _Learner, samples: Sequence[Sample], *, seed: int, plan: Plan
) -> Iterator[Point]:
    learnable, held_out = _split(samples, seed=seed, share=plan.held_out)
    pool = _drawn(list(by_image(learnable)), plan.most_slices, by=_chance(seed, _DRAWN))
    masks_of = by_image(learnable)
    judged = _drawn(held_out, plan.most_masks, by=_chance(seed, _JUDGED))
    start = _drawn(pool, plan.per_round, by=_chance(seed, _START))

    def after(strategy: Strategy, number: int, annotated: list[Path]) -> tuple[Predictor, Point]:
        known = [sample for path in annotated for sample in masks_of[path]]
        predictor = learner.trained(known, seed=seed)
        box, point = learner.judge(predictor, judged, seed=seed)
        return predictor, Point(seed, strategy, number, len(annotated), len(known), box, point)

    parent = learner.trained([], seed=seed)
    box, point = learner.judge(parent, judged, seed=seed)
    first, began = after(BASELINE, 1, start)
    for strategy in plan.strategies:
        yield Point(seed, strategy, 0, 0, 0, box, point)
        yield Point(**(asdict(began) | {"strategy": strategy}))
        predictor, annotated = first, list(start)
        for number in range(plan.rounds):
            left = [path for path in pool if path not in annotated]
            if not left:
                break
            annotated += learner.chosen(
                strategy,
                predictor,
                left,
                {path: masks_of[path] for path in annotated},
                count=plan.per_round,
                seed=int(_chance(seed, _CHOSEN, number).integers(2**31)),
            )
            predictor, reached = after(strategy, number + 2, annotated)
            yield reached


class _Learner:
    """A parent whose encoder stays as it is, and what has been read and encoded so far."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan) -> None:
        metadata = checkpoint.metadata
        self._plan = plan
        self._checkpoint = checkpoint
        self._frame = Frame(preparation=metadata.preparation, size=metadata.image_size)
        self._encoding = Encoding(Remembering(checkpoint.image_encoder()), self._frame)
        self._prompt_encoder = checkpoint.prompt_encoder()
        self._images: dict[Path, Rgb] = {}

    def trained(self, samples: Sequence[Sample], *, seed: int) -> Predictor:
        """The parent, fine-tuned on these; as it is, where there are none."""
        plan = self._plan
        decoder = self._checkpoint.mask_decoder()
        if samples:
            settings = Settings(
                trainable="decoder",
                masks=plan.masks,
                corrections=plan.corrections,
                learning_rate=plan.learning_rate,
                blend=plan.blend,
                halved_after=(),
                seed=seed,
            )
            model = SamMed2D(
                image_encoder=self._encoding.image_encoder,
                prompt_encoder=self._prompt_encoder,
                mask_decoder=decoder,
            )
            trainer = Trainer(
                model, settings=settings, frame=self._frame, device=torch.device("cpu")
            )
            data = Dataset(
                samples, frame=self._frame, seed=seed, augmented=False, balanced=settings.balance
            )
            for step in range(plan.steps):
                # One after the other through all images, in an order that each epoch draws.
                places = [step * settings.images + each for each in range(settings.images)]
                images = [
                    data.draw(
                        epoch=place // len(data),
                        step=step,
                        place=place % len(data),
                        masks=settings.masks,
                    )
                    for place in places
                ]
                chances = [_chance(seed, _TRAINED, step, place) for place in places]
                trainer.step(
                    [Part(images, chances)],
                    chance=_chance(seed, _TRAINED, step),
                    rate=plan.rate(step),
                )
            trainer.refuse_not_finite()
            with trainer.as_kept() as kept:
                decoder = copy.deepcopy(kept.mask_decoder)
        return Predictor(self._prompt_encoder, decoder.eval(), frame=self._frame)

    def judge(
        self, predictor: Predictor, samples: Sequence[Sample], *, seed: int
    ) -> tuple[float, float]:
        """Mean Dice of masks by their boxes, and by a point in each."""
        reached: dict[str, list[float]] = {protocol: [] for protocol in _PROTOCOLS}
        model = Model("simulated", self._encoding, predictor)
        for path, group in by_image(samples).items():
            rgb = self._image(path, group[0])
            targets = []
            for sample in group:
                truth = read_mask(sample.mask, image=rgb)
                by = randomness_of(sample, seed=seed)
                targets.append(Target(truth, sample_prompts(truth, by=by), by))
            for each in answers(Session(model, rgb), targets, protocols=[*_PROTOCOLS], clicks=1):
                reached[each.protocol].append(dice(each.predicted, targets[each.target].truth))
        box, point = (float(np.mean(values)) for values in reached.values())
        return box, point

    def chosen(
        self,
        strategy: Strategy,
        predictor: Predictor,
        candidates: Sequence[Path],
        annotated: dict[Path, list[Sample]],
        *,
        count: int,
        seed: int,
    ) -> list[Path]:
        """The images to annotate next."""
        asked = strategy in ASK_THE_MODEL
        by_name = {str(path): path for path in candidates}
        choices = choose(
            strategy,
            [self._candidate(path, predictor if asked else None) for path in candidates],
            [
                Annotated(
                    features_of(self._embedding(path)), frozenset(each.label for each in samples)
                )
                for path, samples in annotated.items()
            ],
            count=count,
            seed=seed,
        )
        return [by_name[choice.id] for choice in choices]

    def _candidate(self, path: Path, predictor: Predictor | None) -> Candidate:
        embedding = self._embedding(path)
        if predictor is None:
            return Candidate(str(path), features_of(embedding))
        height, width = self._images[path].shape[:2]
        scores = score(predictor, embedding, height=height, width=width)
        return Candidate(
            str(path),
            scores.features,
            predicted_iou=scores.predicted_iou,
            disagreement=scores.disagreement,
            instability=scores.instability,
        )

    def _embedding(self, path: Path) -> Tensor:
        """(256, 16, 16)"""
        (embedding,) = self._encoding.encode([self._image(path)])
        return torch.from_numpy(embedding).float()

    def _image(self, path: Path, sample: Sample | None = None) -> Rgb:
        if path not in self._images:
            self._images[path] = read_image(path, window=sample.window if sample else None)
        return self._images[path]


class Remembering(nn.Module):
    """An image encoder that does not learn, and encodes what it has seen before no second time."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encoder = encoder
        self._seen: dict[bytes, Tensor] = {}

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, 256, size / 16, size / 16)."""
        return torch.stack([self._embedding(image) for image in pixels])

    def _embedding(self, image: Tensor) -> Tensor:
        key = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
        if key not in self._seen:
            # Outside of inference mode: what is remembered is learnt with as well.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._seen[key] = self._encoder(image[None].clone())[0].float()
        return self._seen[key]


def _split(
    samples: Sequence[Sample], *, seed: int, share: float
) -> tuple[list[Sample], list[Sample]]:
    """By subject; at least one on each side."""
    subjects = sorted({sample.subject for sample in samples})
    order = [subjects[i] for i in _chance(seed, _SPLIT).permutation(len(subjects))]
    held = set(order[: min(max(1, round(share * len(order))), len(order) - 1)])
    learnable = [sample for sample in samples if sample.subject not in held]
    return learnable, [sample for sample in samples if sample.subject in held]


def _drawn(items: Sequence[Item], count: int, *, by: np.random.Generator) -> list[Item]:
    """So many of them, in their order."""
    chosen = by.choice(len(items), min(count, len(items)), replace=False)
    return [items[i] for i in sorted(chosen)]


def _chance(*what: int) -> np.random.Generator:
    return np.random.default_rng(what)
