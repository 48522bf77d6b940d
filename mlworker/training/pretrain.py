"""Training a small model from scratch, for a default that segments out of the box.

Fine-tuning (finetune.py) starts from a model that knows what a prompt means; here nothing is
known, and there are hours on a CPU, not days on eight GPUs. So what is cheap is taught first and
everything that is seen is used:

1. *Prompts first*: the decoder alone, on outlines without an image, until a box means an ellipse
   in it and a point something around it. It costs minutes, and the encoder's first gradients make
sense. 2. *Everything together* on scenes: real images, changed a great deal, and synthetic
   structures with real textures. Each image is encoded once for all its masks; each mask is asked
   for twice, first by a box or points, then with corrections where the first answer was wrong.
3. The learning rate stays high and falls at the end; what is kept is an average over the last
   steps. Two recipes that differ by what joins late are the same run until then.

The encoder also has to say, for each pixel, which label it has: alone at first, before the decoder
asks it anything, and with a head that is thrown away afterwards.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from mlworker.contract.messages import Variant
from mlworker.inference.geometry import normalise
from mlworker.inference.predictor import dense_positions
from mlworker.model import sam_med2d
from mlworker.model.decode import decode
from mlworker.training import losses, processes, simulate
from mlworker.training.augment import Augmentation
from mlworker.training.optimiser import Optimiser
from mlworker.training.samples import Sample
from mlworker.training.scenes import Library, Scene
from mlworker.training.shapes import outline

SIZE: Final = sam_med2d.IMAGE_SIZE
KEPT_EVERY_S: Final = 300

# Gentler than the default: a night's training sees each image some dozens of times, and what it
# lacks is time to learn what is there, not variety.
AUGMENTATION: Final = Augmentation(
    flip=0.3,
    turn_degrees=12.0,
    zoom=(0.85, 1.4),
    stretch=0.1,
    bend=0.015,
    gamma=0.2,
    contrast=0.2,
    brightness=0.1,
    invert=0.03,
    noise=0.04,
)


class Recipe(BaseModel):
    """Every number of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant = "hybrid_t"
    seed: int = 0
    images: int = 8  # per step; more masks of an image are cheaper than more images
    masks: int = 4  # per image; half are asked for by a box, half by points
    outline_steps: int = 500
    outline_rows: int = 32
    seeing_steps: int = 1_000  # a step costs half of one with the decoder
    seeing_images: int = 8
    steps: int = 5_000  # at the full learning rate
    fall_steps: int = 700  # in which it falls to nothing
    without: frozenset[str] = frozenset()  # collections that are never seen
    joins: Mapping[str, int] = {}  # collections that are not seen before so many steps
    catch_up: float = 3.0  # how many times as often these are seen then
    learning_rate: float = 3e-3
    warm_up: int = 200
    weight_decay: float = 0.05
    largest_gradient: float = 1.0
    average: float = 0.995  # decay of the weights' moving average
    jitter: float = 0.12  # of a box's sides, a little over what is measured
    exact_boxes: float = 0.3  # the share that is not jittered
    between: float = 0.3  # how often there is a correction before the one that is learnt from
    with_shapes: float = 0.2  # scenes with synthetic structures on top
    only_shapes: float = 0.15  # scenes where only those are asked for
    label_weight: float = 1.0  # of the head that names labels, when the decoder learns too
    others_weight: float = 0.15  # of the candidates that are not the best
    bfloat16: bool = True


@dataclass
class Progress:
    """Where a run is."""

    step: int = 0
    outline_step: int = 0
    seeing_step: int = 0
    seconds: float = 0.0


class Run:
    """A model being trained, with everything that is needed to go on after a stop."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample]) -> None:
        self.recipe = recipe
        self.progress = Progress()
        self.library = Library(samples)
        torch.manual_seed(recipe.seed)
        self.by = self._chance()
        self.model = sam_med2d.build(recipe.variant, adapters=False)
        initialise(self.model)
        self.model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Four low-resolution pixels square per token, as the decoder's output.
        self.names_labels = nn.Conv2d(sam_med2d.CHANNELS, len(self.library.labels) * 16, 1)
        self.average = copy.deepcopy(self.model).requires_grad_(requires_grad=False)
        self.optimiser = Optimiser(
            [self.model, self.names_labels],
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )

    def state(self) -> dict[str, Any]:
        """Everything, for torch.save."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "names_labels": self.names_labels.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``. With other labels (another set of images) the head starts anew."""
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["names_labels"]["weight"].shape == self.names_labels.weight.shape:
            self.names_labels.load_state_dict(state["names_labels"])
        else:
            self.optimiser.forget(list(self.names_labels.parameters()))

    def outlines_step(self) -> float:
        """One step of the decoder alone, on outlines; the loss."""
        self.progress.outline_step += 1
        self.by = self._chance()
        rows = self.recipe.outline_rows // processes.count()
        masks = np.stack([_any_outline(self.by) for _ in range(rows)])
        place = cast(Tensor, self.model.image_encoder.place)
        loss = self._ask(
            place, np.zeros(rows, np.intp), masks, corrected=self.progress.outline_step % 3 == 0
        )
        return self._descend(loss, rate=min(1.0, self.progress.outline_step / 100))

    def seeing_step(self, scenes: list[Scene]) -> float:
        """One step of the image encoder alone: it names what every pixel shows; the loss."""
        self.progress.seeing_step += 1
        self.by = self._chance()
        with self._mixed():
            named = self.names_labels(self._embeddings(scenes)).float()
        rate = min(1.0, self.progress.seeing_step / self.recipe.warm_up)
        return self._descend(self._label_loss(named, scenes), rate=rate)

    @property
    def is_done(self) -> bool:
        """Whether the learning rate has fallen."""
        return self.progress.step >= self.recipe.steps + self.recipe.fall_steps

    @property
    def is_about_to_fall(self) -> bool:
        """Whether the learning rate falls from the next step on."""
        return self.progress.step == self.recipe.steps

    @property
    def shares(self) -> dict[str, float]:
        """How many times as often as by its size a collection is seen in the next step."""
        recipe = self.recipe
        return dict.fromkeys(recipe.without, 0.0) | {
            name: recipe.catch_up if self.progress.step >= step else 0.0
            for name, step in recipe.joins.items()
        }

    def step(self, scenes: list[Scene]) -> float:
        """One step on scenes; the loss."""
        progress, recipe = self.progress, self.recipe
        self.by = self._chance()
        progress.step += 1
        rate = min(1.0, progress.step / recipe.warm_up)
        if progress.step > recipe.steps:
            rate *= max(0.0, 1 - (progress.step - recipe.steps) / recipe.fall_steps)
        masks = np.stack([mask for scene in scenes for mask in scene.masks])
        owners = np.repeat(np.arange(len(scenes)), recipe.masks)
        with self._mixed():
            embeddings = self._embeddings(scenes)
            named = self.names_labels(embeddings).float()
        loss = recipe.label_weight * self._label_loss(named, scenes)
        loss = loss + self._ask(embeddings.float(), owners, masks, corrected=True)
        return self._descend(loss, rate=rate)

    def _embeddings(self, scenes: list[Scene]) -> Tensor:
        images = torch.stack([normalise(scene.image) for scene in scenes])
        encoded = self.model.image_encoder(images.to(memory_format=torch.channels_last))
        return cast(Tensor, encoded)

    def _ask(
        self,
        embeddings: Tensor,
        owners: npt.NDArray[np.intp],
        masks: npt.NDArray[np.uint8],
        *,
        corrected: bool,
    ) -> Tensor:
        """Half of the masks by a box, half by points; ``corrected``, all once more."""
        half = np.arange(len(owners)) % 2 == 0
        asked = [
            self._ask_for(embeddings, owners[rows], masks[rows], kind=kind, corrected=corrected)
            for kind, rows in (("box", half), ("points", ~half))
        ]
        return torch.stack(asked).mean()

    def _ask_for(
        self,
        embeddings: Tensor,
        owners: npt.NDArray[np.intp],
        masks: npt.NDArray[np.uint8],
        *,
        kind: str,
        corrected: bool,
    ) -> Tensor:
        truth = masks > 0
        target = torch.from_numpy(masks).float()
        boxes, points, labels = None, None, None
        if kind == "box":
            boxes = torch.from_numpy(np.stack([self._box(mask) for mask in truth])) - 0.5
        else:
            count = int(self.by.choice([1, 1, 1, 2, 3, 5]))
            points, labels = _stacked(
                [_first_points(mask, count=count, by=self.by) for mask in truth]
            )
        one = embeddings[torch.from_numpy(owners)]
        logits, ious = self._decoded(one, boxes=boxes, points=points, labels=labels, prior=None)
        first = self._mask_loss(logits, ious, target)
        if not corrected:
            return first
        again = 1 + (self.by.random() < self.recipe.between)
        for last in range(again - 1, -1, -1):
            points, labels, prior = self._corrected(truth, logits, ious, points, labels)
            with torch.set_grad_enabled(last == 0):
                logits, ious = self._decoded(
                    one, boxes=boxes, points=points, labels=labels, prior=prior
                )
        return first + self._mask_loss(logits, ious, target)

    @torch.no_grad()
    def _corrected(
        self,
        truth: npt.NDArray[np.bool_],
        logits: Tensor,
        ious: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The points so far and some where the answer is wrong, and the answer as mask prompt."""
        # As served: the answer is the candidate that the model itself thinks best.
        answered = logits[torch.arange(len(truth)), ious.argmax(1)].float()
        predicted = functional.interpolate(answered[:, None], (SIZE, SIZE), mode="bilinear")
        wrong = (predicted[:, 0] > 0).numpy()
        count = int(self.by.choice([1, 1, 2, 3, 5]))
        more, more_labels = _stacked(
            [
                simulate.corrections(guess, mask, count=count, by=self.by)
                for guess, mask in zip(wrong, truth, strict=True)
            ]
        )
        if points is not None and labels is not None:
            more, more_labels = torch.cat((points, more), 1), torch.cat((labels, more_labels), 1)
        return more, more_labels, answered.sigmoid()[:, None]

    def _box(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        if self.by.random() < self.recipe.exact_boxes:
            return simulate.box_of(mask)
        return simulate.jittered_box(mask, share=self.recipe.jitter, by=self.by)

    def _decoded(
        self,
        embeddings: Tensor,
        *,
        boxes: Tensor | None,
        points: Tensor | None,
        labels: Tensor | None,
        prior: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The three candidates' logits and predicted IoUs."""
        # Positions are sines of large numbers: they need float32.
        with torch.autocast("cpu", enabled=False):
            sparse, dense = self.model.prompt_encoder(
                points=None if points is None else (points, labels), boxes=boxes, masks=prior
            )
            positions = dense_positions(self.model.prompt_encoder)
        with self._mixed():
            logits, ious = decode(
                self.model.mask_decoder,
                embeddings=embeddings,
                positions=positions,
                sparse=sparse,
                dense=dense,
            )
        return logits[:, 1:].float(), ious[:, 1:].float()

    def _mask_loss(self, logits: Tensor, ious: Tensor, target: Tensor) -> Tensor:
        """Of the three candidates only the best is judged at full size."""
        rows = torch.arange(logits.shape[0])
        small = functional.avg_pool2d(target, 4)[:, None].expand_as(logits)
        each = _dice_and_border(logits.flatten(0, 1), small.flatten(0, 1)).view(logits.shape[:2])
        best = each.argmin(1)
        full = functional.interpolate(
            logits[rows, best][:, None], (SIZE, SIZE), mode="bilinear", align_corners=False
        )[:, 0]
        with torch.no_grad():
            guess, true = logits > 0, small > 0.5
            union = (guess | true).sum((2, 3)).clamp(min=1)
            actual = (guess & true).sum((2, 3)) / union
        return (
            _dice_and_border(full, target).mean()
            + self.recipe.others_weight * each.mean()
            + functional.mse_loss(ious, actual)
        )

    def _label_loss(self, named: Tensor, scenes: list[Scene]) -> Tensor:
        """Cross-entropy, half of it with every label there counting alike, and Dice of those.

        Only among the labels that the image's collection has, and nothing. Labels that are not
        there count in what is said instead of the truth alone: thirteen organs of which three are
        seen would teach to say nothing at all.
        """
        logits = functional.pixel_shuffle(named, 4)  # (B, labels, 64, 64)
        parts = []
        for row, scene in enumerate(scenes):
            if scene.classes is None:
                continue
            numbers = self.library.labels_of(scene.collection)
            small = torch.from_numpy(scene.classes[2::4, 2::4].astype(np.int64))
            truth = torch.stack([small == number for number in numbers]).float()
            truth = torch.cat([1 - truth.sum(0, keepdim=True), truth])  # nothing comes first
            said = torch.cat([torch.zeros_like(logits[row, :1]), logits[row, numbers]])
            said = said.log_softmax(0)
            right, areas = (said * truth).sum((1, 2)), truth.sum((1, 2))
            there = areas > 0
            entropy = -(right[there] / areas[there]).mean() - right.sum() / areas.sum()
            parts.append(entropy / 2)
            if there[1:].any():
                p, true = said.exp()[1:][there[1:]], truth[1:][there[1:]]
                overlap = (p * true).sum((1, 2))
                dice = (2 * overlap + 1) / (p.sum((1, 2)) + true.sum((1, 2)) + 1)
                parts[-1] = parts[-1] + (1 - dice).mean()
        return torch.stack(parts).mean() if parts else named.sum() * 0

    def _descend(self, loss: Tensor, *, rate: float) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} in step {self.progress.step}")
        loss.backward()  # type: ignore[no-untyped-call]
        value = processes.mean(value)
        processes.average_gradients([*self.model.parameters(), *self.names_labels.parameters()])
        nn.utils.clip_grad_norm_(
            self.model.parameters(), self.recipe.largest_gradient, foreach=True
        )
        self.optimiser.move(learning_rate=self.recipe.learning_rate * rate)
        progress = self.progress
        seen = progress.step + progress.outline_step + progress.seeing_step
        decay = min(self.recipe.average, (1 + seen) / (10 + seen))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.model.parameters()), 1 - decay
            )
        return value

    def _chance(self) -> np.random.Generator:
        """Of this step and process: a run that goes on draws what it would have drawn."""
        progress = self.progress
        return np.random.default_rng(
            (
                self.recipe.seed,
                processes.rank(),
                progress.outline_step,
                progress.seeing_step,
                progress.step,
            )
        )

    def _mixed(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.recipe.bfloat16)


def train(
    run: Run,
    *,
    until: float,
    keep: Callable[[Run], None],
    say: Callable[[str], None],
) -> None:
    """Train until the clock (time.monotonic, s) says so, or until the learning rate has fallen.

    ``keep`` is called every five minutes, before the learning rate falls, and at the end.
    """
    started, kept = time.monotonic() - run.progress.seconds, time.monotonic()
    recent: list[float] = []
    while processes.any_of(claim=time.monotonic() < until):
        if run.progress.outline_step < run.recipe.outline_steps:
            recent.append(run.outlines_step())
        elif run.progress.seeing_step < run.recipe.seeing_steps:
            recent.append(run.seeing_step(_scenes_to_see(run)))
        elif run.is_done:
            break
        else:
            recent.append(run.step(scenes_of(run)))
        run.progress.seconds = time.monotonic() - started
        if len(recent) == 50:
            say(f"{vars(run.progress)} loss {sum(recent) / len(recent):.4f}")
            recent.clear()
        if time.monotonic() - kept > KEPT_EVERY_S or run.is_about_to_fall:
            keep(run)
            kept = time.monotonic()
    keep(run)


def _scenes_to_see(run: Run) -> list[Scene]:
    by = np.random.default_rng((run.recipe.seed, 1, run.progress.seeing_step, processes.rank()))
    return _drawn(run, images=run.recipe.seeing_images, with_shapes=0, only_shapes=0, by=by)


def scenes_of(run: Run) -> list[Scene]:
    """The next step's scenes, a function of the seed and the step's number.

    Not made ahead by a thread: on few cores it delays one half of every matrix product.
    """
    recipe = run.recipe
    by = np.random.default_rng((recipe.seed, run.progress.step, processes.rank()))
    return _drawn(
        run,
        images=recipe.images,
        with_shapes=recipe.with_shapes,
        only_shapes=recipe.only_shapes,
        by=by,
    )


def _drawn(
    run: Run, *, images: int, with_shapes: float, only_shapes: float, by: np.random.Generator
) -> list[Scene]:
    return [
        run.library.draw(
            shares=run.shares,
            size=SIZE,
            masks=run.recipe.masks,
            augmentation=AUGMENTATION,
            with_shapes=with_shapes,
            only_shapes=only_shapes,
            by=by,
        )
        for _ in range(images // processes.count())
    ]


def initialise(model: sam_med2d.SamMed2D) -> None:
    """PyTorch's own weights, but a ViT's small ones where there is one, and few beside places."""
    for module in model.image_encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith("pos_embed"):
            nn.init.trunc_normal_(parameter, std=0.02)
        # The decoder has learnt on places alone: what is seen is added little by little.
        if name.endswith(("neck.3.weight", "fine.1.weight")):
            with torch.no_grad():
                parameter.mul_(0.5)
        if name.endswith("reduce.weight"):
            nn.init.zeros_(parameter)  # a residual block begins as nothing


def _dice_and_border(logits: Tensor, target: Tensor) -> Tensor:
    """Per mask, (N,): soft Dice, and two means of the cross-entropy.

    One in proportion to the mask's size: a mean over all pixels would tell a nucleus's border next
    to nothing. One over inside and outside apart: without it nothing at all is drawn at first,
    because outside is so much larger.
    """
    area = target.sum((1, 2))
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = logits.shape[1] * logits.shape[2] / 256
    inside, everything = (entropy * target).sum((1, 2)), entropy.sum((1, 2))
    outside = target[0].numel() - area
    apart = inside / (area + 1) + (everything - inside) / (outside + 1)
    dice = losses.dice_each(logits, target)
    return dice + 0.5 * everything / (2 * area + share) + 0.5 * apart


def _any_outline(by: np.random.Generator) -> npt.NDArray[np.uint8]:
    while True:
        mask = outline(SIZE, inside=None, by=by)
        if mask.sum() >= 80:
            return mask


def _first_points(
    mask: npt.NDArray[np.bool_], *, count: int, by: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The first inside; each further one inside, or outside but near."""
    points, labels = simulate.first_point(mask, by=by)
    if count == 1:
        return points, labels
    x0, y0, x1, y1 = simulate.box_of(mask).astype(int)
    dx, dy = (x1 - x0) // 3 + 2, (y1 - y0) // 3 + 2
    near = np.zeros_like(mask)
    near[max(0, y0 - dy) : y1 + dy, max(0, x0 - dx) : x1 + dx] = True
    near &= ~mask
    for _ in range(count - 1):
        region = near if by.random() < 0.5 and near.any() else mask
        point, _ = simulate.first_point(region, by=by)
        points = np.concatenate((points, point))
        labels = np.append(labels, int(region is mask))
    return points, labels


def _stacked(
    drawn: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
) -> tuple[Tensor, Tensor]:
    return (
        torch.from_numpy(np.stack([points for points, _ in drawn])),
        torch.from_numpy(np.stack([labels for _, labels in drawn])),
    )
