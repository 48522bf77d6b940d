"""Several processes that train one model, each on its part of every batch, started by torchrun.

Not torch's DistributedDataParallel: it wraps a module that is called once between two steps of the
optimiser, and here the parts are called nine times, with other parts learning. What it does is
little: gradients are averaged, in pieces, after each backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import Tensor, distributed

_PIECE: Final = 8_000_000  # values in one exchange: few messages, and little memory beside


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started; alone without it."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number; the first one writes and tells."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def place_on_machine() -> int | None:
    """Which of this machine's processes this is, where torchrun started it."""
    place = os.environ.get("LOCAL_RANK")
    return None if place is None else int(place)


def count() -> int:
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def add_up(values: Tensor) -> Tensor:
    """The sum over the processes, differentiable: each learns what its part did to the whole."""
    return cast(Tensor, _Sum.apply(values)) if count() > 1 else values  # type: ignore[no-untyped-call]


def mean(value: float) -> float:
    """The mean over the processes, the same number in each."""
    if count() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=_device())
    distributed.all_reduce(shared)
    return float(shared.item()) / count()


def any_of(*, claim: bool) -> bool:
    """Whether it holds in any process."""
    if count() == 1:
        return claim
    held = torch.tensor([int(claim)], device=_device())
    distributed.all_reduce(held)
    return bool(held.item())


def of_first(compute: Callable[[], float]) -> float:
    """What the first process computes; the others wait for it."""
    if count() == 1:
        return compute()
    value = torch.tensor([compute() if rank() == 0 else 0.0], dtype=torch.float64, device=_device())
    distributed.broadcast(value, src=0)
    return float(value.item())


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their means; the same ones must be there in all processes."""
    if count() == 1:
        return
    piece: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            piece.append(parameter.grad)
        if sum(grad.numel() for grad in piece) >= _PIECE:
            _average(piece)
            piece = []
    if piece:
        _average(piece)


def _device() -> torch.device:
    on_gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def _average(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= count()
    parts = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        # Every process has the whole sum in its loss, and the mean of the losses is what is learnt.
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
