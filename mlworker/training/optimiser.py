"""What moves the weights of a model that learns from scratch: Muon for matrices, Adam for the rest.

Muon (https://kellerjordan.github.io/posts/muon, torch's own) moves a matrix equally far in all of
its directions, where Adam follows the few that the gradients agree on. On our images it needs about
half as many steps, and a step takes a fifth longer. A filter is a matrix, too: (outputs, inputs x
rows x columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

SMALLEST: Final = 4_096  # values of what counts as a matrix; smaller ones cost more than they win


class Optimiser:
    """Both optimisers as one; what is not learnt yet (no gradient) stays as it is."""

    def __init__(
        self, modules: Sequence[nn.Module], *, learning_rate: float, weight_decay: float
    ) -> None:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self._filters = [p for p in parameters if _is_matrix(p)]
        # Views: to move one moves the weights.
        self._matrices = [_as_matrix(p.detach()) for p in self._filters]
        self._muon = torch.optim.Muon(
            self._matrices,
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = torch.optim.AdamW(
            [p for p in parameters if not _is_matrix(p)],
            lr=learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        )

    def move(self, *, learning_rate: float) -> None:
        """One step along the gradients, which are then dropped."""
        for matrix, parameter in zip(self._matrices, self._filters, strict=True):
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        for optimiser in (self._muon, self._adam):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            optimiser.step()  # type: ignore[no-untyped-call]
            optimiser.zero_grad(set_to_none=True)
        for parameter in self._filters:
            parameter.grad = None

    def forget(self, parameters: Sequence[nn.Parameter]) -> None:
        """Begin anew with these: they are others than they were."""
        for matrix, parameter in zip(self._matrices, self._filters, strict=True):
            if any(parameter is each for each in parameters):
                self._muon.state.pop(matrix, None)
        for each in parameters:
            self._adam.state.pop(each, None)

    def state_dict(self) -> dict[str, Any]:
        """Everything, for torch.save."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() in (2, 4) and len(parameter) > 1 and parameter.numel() >= SMALLEST


def _as_matrix(values: Tensor) -> Tensor:
    """(outputs, all others), a view where channels lie together in memory, as filters' do here."""
    if values.dim() == 2:
        return values
    channels_last = values.is_contiguous(memory_format=torch.channels_last)
    together = values.permute(0, 2, 3, 1) if channels_last else values
    return together.flatten(1)
