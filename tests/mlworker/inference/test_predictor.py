from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlworker.contract.messages import Box, Point
from mlworker.inference import predictor as predicting
from mlworker.inference.cache import decoding_part
from mlworker.inference.encoder import Encoding
from mlworker.inference.geometry import PUBLISHED
from mlworker.inference.predictor import Prompt
from mlworker.model.checkpoint import Checkpoint, untrained
from tests.mlworker import reference

PUBLISHED_SLICES = ("amos_0004_75", "s0114_111")


@pytest.mark.parametrize(("name", "case", "mode"), reference.all_cases(reference.SIZES))
def test_proposals_equal_the_published(name, case, mode, reference_predictor, portable):
    _assert_equal_to_published(
        reference_predictor, portable, name=name, case=case, multimask=mode == "multi"
    )


@pytest.mark.parametrize(("name", "case", "mode"), reference.all_cases(PUBLISHED_SLICES))
def test_proposals_on_published_slices_equal_the_published(
    name, case, mode, reference_predictor, published
):
    _assert_equal_to_published(
        reference_predictor, published, name=name, case=case, multimask=mode == "multi"
    )


@pytest.mark.parametrize(("name", "case"), [(n, c) for n in "ab" for c in reference.CASES])
def test_served_from_float16_embeddings_proposals_hardly_move(
    name, case, reference_predictor, portable
):
    stored = torch.from_numpy(portable[f"{name}/embedding"][0]).half()
    height, width = reference.SIZES[name]
    prompts = reference.prompts(portable, name, case)

    served = reference_predictor.predict(
        stored,
        height=height,
        width=width,
        points=prompts.points,
        box=prompts.box,
        mask_prompt=prompts.mask_prompt,
    )

    key = f"{name}/{case}/multi"
    logits = served.low_res_logits.numpy()
    assert np.abs(logits - portable[f"{key}/low_res_logits"][0]).max() < 1e-3
    expected = reference.mask(portable, key)
    both = (served.mask & expected).sum()
    assert 2 * both / (served.mask.sum() + expected.sum()) >= 0.999


def test_all_candidates_equal_the_published(reference_predictor, portable):
    height, width = reference.SIZES["a"]

    logits, ious = reference_predictor.candidates(
        torch.from_numpy(portable["a/embedding"][0]),
        height=height,
        width=width,
        points=reference.prompts(portable, "a", "point1").points,
    )

    assert np.abs(logits.numpy() - portable["a/point1/candidates_low_res_logits"][0]).max() < 1e-4
    assert np.abs(ious.numpy() - portable["a/point1/candidates_iou"][0]).max() < 1e-5


def test_the_candidate_with_the_highest_predicted_iou_is_kept(reference_predictor, portable):
    height, width = reference.SIZES["a"]
    embedding = torch.from_numpy(portable["a/embedding"][0])
    points = reference.prompts(portable, "a", "point1").points

    logits, ious = reference_predictor.candidates(
        embedding, height=height, width=width, points=points
    )
    kept = reference_predictor.predict(embedding, height=height, width=width, points=points)

    assert kept.predicted_iou == float(ious.max())
    assert torch.equal(kept.low_res_logits, logits[int(ious.argmax())])


@pytest.mark.parametrize("a_pass", [2, 64])
def test_many_objects_get_what_each_gets_alone(a_pass, reference_predictor, portable, monkeypatch):
    """In the order they were asked in, whatever their forms, also when a pass is not enough."""
    monkeypatch.setattr(predicting, "PROMPTS_A_PASS", a_pass)
    _assert_equal_to_one_by_one(reference_predictor, portable)


def test_many_objects_get_what_each_gets_alone_where_prompts_are_drawn(portable, tmp_path):
    path = tmp_path / "hybrid.safetensors"
    path.write_bytes(untrained("hybrid_t", seed=5))
    _assert_equal_to_one_by_one(decoding_part(Checkpoint(path)), portable)


def test_no_objects_get_nothing(reference_predictor, portable):
    embedding = torch.from_numpy(portable["b/embedding"][0])

    assert reference_predictor.predict_many(embedding, height=181, width=258, prompts=[]) == []


def test_prompts_leave_nothing_behind(reference_predictor, portable):
    """A predictor is shared by all sessions: what one asks must not touch another's answer."""
    embedding = torch.from_numpy(portable["b/embedding"][0])
    before = embedding.clone()
    height, width = reference.SIZES["b"]

    def ask(case):
        prompts = reference.prompts(portable, "b", case)
        return reference_predictor.predict(
            embedding,
            height=height,
            width=width,
            points=prompts.points,
            box=prompts.box,
            mask_prompt=prompts.mask_prompt,
        )

    first = {case: ask(case) for case in reference.CASES}
    again = {case: ask(case) for case in reversed(reference.CASES)}

    assert torch.equal(embedding, before)
    for case in reference.CASES:
        assert torch.equal(first[case].low_res_logits, again[case].low_res_logits)


def test_the_untrained_demo_model_reacts_to_prompts(small_checkpoint):
    """Its shapes mean nothing, but they are there, leave room, and answer to every prompt."""
    checkpoint = Checkpoint(small_checkpoint)
    y, x = np.mgrid[:256, :256]
    grey = np.zeros((256, 256), np.uint8)  # like a slice of CT: a body, an organ, a bone
    grey[((x - 128) / 100) ** 2 + ((y - 128) / 80) ** 2 < 1] = 120
    grey[((x - 90) / 30) ** 2 + ((y - 110) / 25) ** 2 < 1] = 170
    grey[((x - 128) / 14) ** 2 + ((y - 180) / 14) ** 2 < 1] = 240
    (embedding,) = Encoding(checkpoint.image_encoder()).encode(
        [np.repeat(grey[..., None], 3, axis=2)]
    )
    predictor = decoding_part(checkpoint)
    organ, bone = Point(x=90, y=110, positive=True), Point(x=128, y=180, positive=True)
    asked: list[dict[str, Any]] = [
        {"points": (organ,)},
        {"points": (bone,)},
        {"points": (organ, bone.model_copy(update={"positive": False}))},
        {"box": Box(x0=60, y0=80, x1=120, y1=140)},
    ]

    proposals = [
        predictor.predict(torch.from_numpy(embedding), height=256, width=256, **each).mask
        for each in asked
    ]

    assert all(0.02 < mask.mean() < 0.9 for mask in proposals)
    assert all((proposals[0] ^ other).mean() > 0.02 for other in proposals[1:])


def _assert_equal_to_one_by_one(predictor, vectors):
    embedding = torch.from_numpy(vectors["b/embedding"][0])
    height, width = reference.SIZES["b"]
    cases = [reference.prompts(vectors, "b", case) for case in reference.CASES]
    prompts = [
        Prompt(points=case.points, box=case.box, mask_prompt=case.mask_prompt) for case in cases
    ]
    mask_prompt = torch.from_numpy(np.random.default_rng(6).random((64, 64), dtype=np.float32))
    prompts += [
        Prompt(box=Box(x0=20, y0=30, x1=90, y1=100)),
        Prompt(points=(Point(x=200, y=20, positive=False),)),
        Prompt(box=Box(x0=5, y0=8, x1=250, y1=60)),
        Prompt(mask_prompt=mask_prompt),
    ]

    together = predictor.predict_many(embedding, height=height, width=width, prompts=prompts)

    assert len(together) == len(prompts)
    for prompt, found in zip(prompts, together, strict=True):
        logits, ious = predictor.candidates(
            embedding,
            height=height,
            width=width,
            points=prompt.points,
            box=prompt.box,
            mask_prompt=prompt.mask_prompt,
        )
        best = int(ious.argmax())
        alone = PUBLISHED.to_slice(logits[best][None], height=height, width=width)[0] > 0
        assert (found.low_res_logits - logits[best]).abs().max() < 1e-4
        assert abs(found.predicted_iou - float(ious[best])) < 1e-5
        assert found.mask.shape == (height, width)
        assert (found.mask != alone.numpy()).mean() < 1e-4


def _assert_equal_to_published(predictor, vectors, *, name, case, multimask):
    key = f"{name}/{case}/{'multi' if multimask else 'single'}"
    expected = reference.mask(vectors, key)
    height, width = expected.shape
    prompts = reference.prompts(vectors, name, case)

    logits, ious = predictor.candidates(
        torch.from_numpy(vectors[f"{name}/embedding"][0]),
        height=height,
        width=width,
        points=prompts.points,
        box=prompts.box,
        mask_prompt=prompts.mask_prompt,
        multimask=multimask,
    )
    best = int(ious.argmax())
    with torch.inference_mode():
        mask = (PUBLISHED.to_slice(logits[best][None], height=height, width=width)[0] > 0).numpy()

    assert logits.shape == (3 if multimask else 1, 64, 64)
    assert np.abs(logits[best].numpy() - vectors[f"{key}/low_res_logits"][0]).max() < 1e-4
    assert abs(float(ious[best]) - float(vectors[f"{key}/iou"][0])) < 1e-5
    assert (mask != expected).sum() <= 5e-5 * mask.size
