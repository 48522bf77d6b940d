"""Muon for matrices and filters, Adam for the rest: one optimiser to whoever trains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mlworker.training.optimiser import Optimiser


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 64, 3), nn.GELU(), nn.Conv2d(64, 64, 3), nn.Flatten())
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.fixture
def optimiser(model):
    return Optimiser([model], learning_rate=1e-2, weight_decay=0.01)


def descend(model, optimiser) -> float:
    by = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 8, 8, generator=by).to(memory_format=torch.channels_last)
    loss = (model(images) - 1).square().mean()
    loss.backward()
    optimiser.move(learning_rate=1e-2)
    return float(loss.detach())


def test_filters_and_biases_learn(model, optimiser) -> None:
    before = copy.deepcopy(model.state_dict())
    losses = [descend(model, optimiser) for _ in range(20)]

    assert losses[-1] < 0.3 * losses[0]
    assert all(not torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_filter_moves_equally_far_in_all_directions(model, optimiser) -> None:
    before = model[2].weight.detach().clone()
    descend(model, optimiser)
    moved = (model[2].weight.detach() - before).flatten(1)

    singular = torch.linalg.svdvals(moved)
    assert singular.max() / singular.median() < 2


def test_gradients_are_dropped_and_what_has_none_stays(model, optimiser) -> None:
    still = model[2].weight.detach().clone()
    model[0](torch.randn(1, 3, 8, 8)).sum().backward()
    optimiser.move(learning_rate=1e-2)

    assert torch.equal(still, model[2].weight)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_goes_on_from_its_state(model, optimiser) -> None:
    descend(model, optimiser)
    other_model = copy.deepcopy(model)
    other = Optimiser([other_model], learning_rate=1e-2, weight_decay=0.01)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for pair in ((model, optimiser), (other_model, other)):
        descend(*pair)

    for key, value in model.state_dict().items():
        assert torch.equal(value, other_model.state_dict()[key]), key


def test_what_is_forgotten_begins_anew(model, optimiser) -> None:
    descend(model, optimiser)
    kept = len(optimiser.state_dict()["muon"]["state"])
    optimiser.forget([model[2].weight])

    assert len(optimiser.state_dict()["muon"]["state"]) == kept - 1
