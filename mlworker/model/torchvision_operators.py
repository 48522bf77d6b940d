"""Lets `segment_anything` be imported on a CPU-only torch. Import it from here.

segment_anything imports torchvision, whose wheel declares its operators in a CUDA library that does
not load without CUDA; its Python part then fails to attach shapes to ``nms``. Declaring the two
operators is enough for the import. Nothing here calls them.
"""

from __future__ import annotations

import torch

_OPERATOR = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _torchvision_loads() -> bool:
    try:
        import torchvision  # noqa: F401, PLC0415 (whether it can be imported is the question)
    except RuntimeError:
        return False
    return True


# Kept alive: a Library's operators go with it.
_declared: torch.library.Library | None = None
if not _torchvision_loads():
    _declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        _declared.define(_name + _OPERATOR)  # type: ignore[no-untyped-call]

import segment_anything  # noqa: E402

modeling = segment_anything.modeling
