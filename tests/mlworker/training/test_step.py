"""One step: who learns when, and what the simulated annotator asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlworker.inference.geometry import Frame
from mlworker.model import sam_med2d
from mlworker.model.checkpoint import Checkpoint, load_strictly
from mlworker.training.dataset import DrawnImage
from mlworker.training.settings import Settings
from mlworker.training.step import NotFinite, Part, Trainer, learns

SIZE = 256


@pytest.fixture
def model(small_checkpoint):
    """vit_t with the weights of a new installation."""
    checkpoint = Checkpoint(small_checkpoint)
    return sam_med2d.SamMed2D(
        image_encoder=checkpoint.image_encoder(),
        prompt_encoder=checkpoint.prompt_encoder(),
        mask_decoder=checkpoint.mask_decoder(),
    )


def part(*, images: int = 1, masks: int = 2, seed: int = 0) -> Part:
    y, x = np.mgrid[:SIZE, :SIZE]
    drawn, by = [], np.random.default_rng(seed)
    for _ in range(images):
        discs = [(x - cx) ** 2 + (y - 120) ** 2 < 40**2 for cx in by.uniform(60, 190, masks)]
        image = by.integers(0, 60, (SIZE, SIZE, 3)).astype(np.uint8)
        image[np.any(discs, axis=0)] += 120
        drawn.append(DrawnImage(image, np.stack(discs)))
    return Part(drawn, [np.random.default_rng((seed, number)) for number in range(images)])


def trainer(model, **settings: Any) -> Trainer:
    return Trainer(
        model,
        settings=Settings.model_validate(settings),
        frame=Frame(),
        device=torch.device("cpu"),
    )


def step(trained: Trainer, *parts: Part, seed: int = 0) -> tuple[float, float]:
    return trained.step(parts, chance=np.random.default_rng(seed), rate=1e-3)


def moved(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    return {key for key, value in model.state_dict().items() if not value.equal(before[key])}


def copy_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("trainable", ["adapters", "decoder", "everything"])
def test_only_what_is_chosen_learns(model, trainable):
    before = copy_of(model)

    step(trainer(model, trainable=trainable, corrections=2), part())

    changed = moved(before, model)
    assert changed <= {key for key in before if learns(key, trainable=trainable)}
    parts = {key.split(".")[0] for key in changed}
    assert "mask_decoder" in parts
    assert ("prompt_encoder" in parts) == (trainable != "decoder")
    encoder = {key for key in changed if key.startswith("image_encoder.")}
    assert any(".Adapter." in key for key in encoder) == (trainable != "decoder")
    assert any(".attn.qkv" in key for key in encoder) == (trainable == "everything")


def test_point_and_box_embeddings_learn(model):
    before = copy_of(model)
    step(trainer(model, box_share=1.0, corrections=0), part())
    after_a_box = moved(before, model)
    step(trainer(model, box_share=0.0, corrections=0), part())
    after_a_point = moved(before, model)

    corners = {f"prompt_encoder.point_embeddings.{n}.weight" for n in (2, 3)}
    assert corners <= after_a_box
    assert "prompt_encoder.point_embeddings.1.weight" in after_a_point - after_a_box


def test_corrections_move_the_decoder_alone(model):
    trained = trainer(model, corrections=8)
    seen: list[set[str]] = []
    descend = trained._descend

    def watched(answers: Any) -> float:
        before = copy_of(model)
        loss = descend(answers)
        seen.append({key.split(".")[0] for key in moved(before, model)})
        return loss

    trained._descend = watched  # type: ignore[method-assign]
    step(trained, part())

    assert seen == [{"image_encoder", "prompt_encoder", "mask_decoder"}] + [{"mask_decoder"}] * 8


def test_a_session_is_asked_as_published(model):
    asked: list[dict[str, Any]] = []
    encoded: list[int] = []
    model.prompt_encoder.register_forward_pre_hook(
        lambda _, __, given: asked.append(given), with_kwargs=True
    )
    model.image_encoder.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    trained = trainer(model)
    alone_at = set()
    for seed in range(3):
        asked.clear()
        step(trained, part(images=2, masks=2), seed=seed)

        first, *corrections = asked
        assert (first["points"] is None) != (first["boxes"] is None)
        assert first["masks"] is None
        assert len(corrections) == 8
        assert all(each["boxes"] is None for each in corrections)
        for each in corrections:
            assert each["masks"].shape == (4, 1, 64, 64)
            assert 0 <= each["masks"].min() <= each["masks"].max() <= 1
        points = [each["points"] for each in corrections]
        alone = {number for number, each in enumerate(points) if each is None}
        assert len(alone) == 2
        assert 7 in alone
        assert min(alone) in range(1, 7)
        assert {each[0].shape[1] for each in points if each is not None} <= {1, 3, 5, 9}
        alone_at.add(min(alone))
    assert encoded == [2] * 3  # each image once a step
    assert len(alone_at) > 1


def test_a_step_with_the_same_chance_is_the_same_step(model, small_checkpoint):
    before = copy_of(model)
    told = []
    for _ in range(2):
        model.load_state_dict(before)
        told.append((step(trainer(model, corrections=2), part()), copy_of(model)))

    assert told[0][0] == told[1][0]
    assert all(told[0][1][key].equal(value) for key, value in told[1][1].items())


def test_accumulated_parts_are_one_batch(model):
    """The same part twice is that part once: the mean of equal gradients."""
    before = copy_of(model)
    step(trainer(model, corrections=2), part())
    once = copy_of(model)
    model.load_state_dict(before)
    step(trainer(model, corrections=2, accumulate=2), part(), part())

    worst = max((model.state_dict()[key] - value).abs().max() for key, value in once.items())
    assert worst < 1e-4  # a tenth of a move: Adam makes rounding visible where gradients are zero


def test_bfloat16_learns_nearly_the_same(model):
    before = copy_of(model)
    loss, _ = step(trainer(model, corrections=0), part())
    model.load_state_dict(before)
    rounded, _ = step(trainer(model, corrections=0, precision="bfloat16"), part())

    assert rounded == pytest.approx(loss, rel=0.03)
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_a_decoder_learns_two_discs(model):
    trained = trainer(model, trainable="decoder", corrections=1)
    told = [step(trained, part(), seed=number) for number in range(16)]

    losses, dices = zip(*told, strict=True)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert np.mean(dices[-5:]) > np.mean(dices[:5])


def test_weights_that_are_no_numbers_end_a_step_and_are_not_kept(model):
    trained = trainer(model)
    state = model.state_dict()
    state["mask_decoder.iou_token.weight"].fill_(torch.nan)

    with pytest.raises(NotFinite, match="nan"):
        step(trained, part())
    with pytest.raises(NotFinite, match="weights"):
        trained.refuse_not_finite()


def test_what_is_kept_lies_between_what_was_known_and_what_was_learnt(model):
    before = copy_of(model)
    trained = trainer(model, corrections=1, blend=0.25)
    step(trained, part())
    learnt = copy_of(model)

    with trained.as_kept() as kept:
        weights = copy_of(kept)

    for key in moved(before, model):
        assert weights[key].allclose(before[key] + 0.25 * (learnt[key] - before[key]), atol=1e-6)
        assert not weights[key].equal(learnt[key])
    assert not moved(learnt, model)


def test_without_a_blend_everything_learnt_is_kept(model):
    trained = trainer(model, corrections=1)
    step(trained, part())
    with trained.as_kept() as kept:
        assert kept is trained.model


def test_moments_and_weights_are_taken_up(model, small_checkpoint):
    trained = trainer(model, corrections=1)
    step(trained, part())
    kept = {
        kind: {
            key: {n: v.clone() for n, v in value.items()} if kind == "moments" else value.clone()
            for key, value in of.items()
        }
        for kind, of in trained.state().items()
    }
    step(trained, part(), seed=1)
    expected = copy_of(model)

    other = sam_med2d.build("vit_t")
    load_strictly(other, expected)
    again = trainer(other, corrections=1)
    again.load(kept)
    step(again, part(), seed=1)

    assert all(expected[key].equal(value) for key, value in other.state_dict().items())
