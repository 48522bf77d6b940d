"""Products with weight matrices, which can be packed for serving.

Nearly all of an encoder's work is products with weights. While a model trains they are torch's own.
To serve, the weights are put once into the precision and, on a CPU, the layout that multiply
fastest: oneDNN's, through the operators that torch's compiler emits. float32 gains as well, because
torch's usual library is tuned for one maker's CPUs. What is between the products keeps its
precision, above all the sum that runs through all blocks.
"""

from __future__ import annotations

from typing import Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Then = Literal["none", "gelu", "relu"]  # what follows a product; names of oneDNN's operators

_FOLLOWS: Final = {"none": lambda x: x, "gelu": functional.gelu, "relu": functional.relu}


class Product(nn.Module):
    """A module whose work is one product with its weights."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    _packed: Tensor | None = None

    @property
    def is_packed(self) -> bool:
        """Whether it is for inference only."""
        return self._packed is not None

    def matrix(self) -> Tensor:
        """(outputs, inputs), a view of the weights in their published order."""
        return self.weight.flatten(1)

    def matrix_to_pack(self) -> Tensor:
        """The same in the order that serves best, which may take a copy."""
        return self.matrix()

    def multiply(self, x: Tensor, *, then: Then = "none") -> Tensor:
        """(..., inputs) -> (..., outputs), in the precision that was packed for."""
        if self._packed is not None and self._packed.is_mkldnn:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(
                self.rounded(x), self._packed, self.bias, then, [], "none"
            )
            return product
        matrix = self.matrix() if self._packed is None else self._packed
        return cast(Tensor, _FOLLOWS[then](functional.linear(self.rounded(x), matrix, self.bias)))

    def rounded(self, x: Tensor) -> Tensor:
        """What is multiplied, in the precision that was packed for."""
        return x if self._packed is None else x.to(self._packed.dtype)

    def pack(self, dtype: torch.dtype) -> None:
        """Keep the packed weights instead of the published ones: for inference only."""
        with torch.no_grad():
            matrix = self.matrix_to_pack().to(dtype).contiguous()
            if matrix.device.type == "cpu" and has_onednn():
                matrix = torch.ops.mkldnn._reorder_linear_weight(matrix)
            self._packed = matrix
            if self.bias is not None:
                self.bias = nn.Parameter(self.bias.to(dtype), requires_grad=False)
        del self.weight


class Linear(Product, nn.Linear):  # type: ignore[misc] # nn.Linear's bias is one by its stub only
    """A linear layer as a product; torch's become it by their class."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.multiply(x)


def pack(module: nn.Module, *, dtype: torch.dtype) -> None:
    """Pack all products of a module, in place."""
    for each in module.modules():
        if isinstance(each, Product):
            each.pack(dtype)


def has_onednn() -> bool:
    """Whether torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
