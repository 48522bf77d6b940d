"""Other people's checkpoints, read without running anything that they hold.

What is understood: SAM-Med2D's own files (a pickle with the weights under ``model``, the optimizer
beside it), those of the original SAM at 1024 px, plain state dicts that were fine-tuned from
either, with adapters or without, and our own format. What a file is, its weights say: nothing is
guessed from its name. Equal files give equal bytes.
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, Final, NamedTuple

import safetensors
import torch
from torch import Tensor

from mlworker.contract.messages import AdapterChoice, Variant
from mlworker.model import sam_med2d
from mlworker.model.adapter import without_adapters
from mlworker.model.checkpoint import (
    METADATA_KEY,
    Checkpoint,
    CheckpointError,
    Metadata,
    OtherModel,
    digest_of_file,
    few,
    pack,
    random_weight,
    refuse_misfits,
)

SAM_SIZE: Final = 1024  # pixels; what the original SAM was trained at
FRESH_SEED: Final = 0  # one for all, so that the same file becomes the same checkpoint


class NoCheckpoint(CheckpointError):
    """A file that holds no weights at all, or no file."""


class Damaged(CheckpointError):
    """A checkpoint that is cut off or was changed on its way."""


class CarriesCode(CheckpointError):
    """A pickle that asks for more than weights when it is read."""


class UnusableWeights(CheckpointError):
    """Weights that are not finite, or no floating-point numbers."""


def converted(
    path: Path,
    *,
    adapters: AdapterChoice | None = None,
    image_size: int | None = None,
    half: bool = False,
) -> bytes:
    """A checkpoint of ours from a file of anybody's; one of ours stays what it is, to the byte.

    Takes and raises what ``read_foreign`` does; with ``half`` the weights are stored in half
    precision.
    """
    state, metadata = read_foreign(path, adapters=adapters, image_size=image_size)
    if not half and metadata == _stated(path):
        return path.read_bytes()
    return pack(state, metadata, precision=torch.float16 if half else torch.float32)


def read_foreign(
    path: Path, *, adapters: AdapterChoice | None = None, image_size: int | None = None
) -> tuple[dict[str, Tensor], Metadata]:
    """A model's weights in float32, and what can be said of it.

    ``adapters``: fresh ones, which change nothing until they are trained, those of the file, or
    none; without a choice those of the file, and fresh ones for an original SAM that is brought to
    256 px, as SAM-Med2D was made. ``image_size``: 256 px, or what a model of ours has. Raises
    NoCheckpoint, Damaged, CarriesCode, OtherModel, UnusableWeights, or CheckpointError itself for a
    checkpoint of ours that says what is not so.
    """
    stated = _stated(path)
    weights = _weights(path)
    found = _recognised(weights)
    if stated and found != (said := _Kind(stated.variant, stated.image_size, stated.adapters)):
        raise OtherModel(f"the file says that it is {said}, and it is {found}")
    _refuse_other_shapes(weights, found)
    state = _in_single_precision(weights)

    size = image_size or (stated.image_size if stated else sam_med2d.IMAGE_SIZE)
    if size > found.image_size:
        raise OtherModel(f"a model of {found.image_size} px cannot become one of {size} px")
    if adapters is None:
        is_sam_to_adapt = not found.adapters and size < found.image_size
        adapters = "fresh" if is_sam_to_adapt else "keep"

    history = [stated.origin if stated else str(found)]
    if size < found.image_size:
        state = sam_med2d.resize_positions(state, image_size=size)
        history.append(f"positions resized to {size} px")
    if adapters == "drop" and found.adapters:
        state = without_adapters(state)
        history.append("adapters dropped")
    if adapters == "fresh":
        state = without_adapters(state) | _fresh_adapters(found.variant)
        history.append("fresh adapters")
    if stated and len(history) == 1:
        return state, stated
    return state, Metadata(
        variant=found.variant,
        image_size=size,
        adapters=adapters == "fresh" or (adapters == "keep" and found.adapters),
        preparation=stated.preparation if stated else 1,
        trained=stated.trained if stated else True,
        origin=", ".join(history),
        parent=digest_of_file(path),
    )


class _Kind(NamedTuple):
    """What the names and shapes of weights say."""

    variant: Variant
    image_size: int
    adapters: bool

    def __str__(self) -> str:
        adapters = "with adapters" if self.adapters else "without adapters"
        return f"a SAM of {self.variant} at {self.image_size} px {adapters}"


def _stated(path: Path) -> Metadata | None:
    """What a checkpoint of ours says of itself; None for others' files."""
    if _format_of(path) is not _from_safetensors:
        return None
    with _opened_safetensors(path) as file:
        if METADATA_KEY not in (file.metadata() or {}):
            return None
    return Checkpoint(path).metadata


def _weights(path: Path) -> dict[str, Tensor]:
    content = _format_of(path)(path)
    if not isinstance(content, Mapping):
        raise NoCheckpoint("the file holds no weights by name")
    for name in ("model", "state_dict", "model_state_dict"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    # "module." is what several graphics cards leave before every name.
    weights = {str(key).removeprefix("module."): value for key, value in content.items()}
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise NoCheckpoint("the file holds other things than weights by name")
    return weights


def _format_of(path: Path) -> Callable[[Path], object]:
    """How a file is to be read, by its first bytes."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        raise NoCheckpoint(f"the file is {what}")
    with path.open("rb") as file:
        beginning = file.read(9)
    if not beginning:
        raise NoCheckpoint("the file is empty")
    if beginning.startswith(b"PK\x03\x04"):
        return _from_archive
    if beginning.endswith(b"{") and len(beginning) == 9:
        return _from_safetensors
    if beginning.startswith(b"\x80"):
        return _from_pickle
    raise NoCheckpoint("the file is no checkpoint: neither of torch nor safetensors")


def _opened_safetensors(path: Path) -> Any:  # a safe_open, whose methods carry no types
    try:
        return safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise Damaged(f"the file is cut off or damaged: {error}") from error


def _from_safetensors(path: Path) -> object:
    with _opened_safetensors(path) as file:
        # Copied: what safe_open gives is a view of the file, which may be evicted or removed.
        return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118


def _from_archive(path: Path) -> object:
    """A file of torch's since 1.6: a zip with a pickle and the weights' bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                # torch never compresses, and what is compressed may be larger than any memory.
                raise NoCheckpoint("the file is a zip file, and not one that torch wrote")
            if any("/code/" in name for name in names):
                raise CarriesCode("the file carries code: it is a TorchScript program")
            if not any(name.endswith("/data.pkl") for name in names):
                raise NoCheckpoint("the file is a zip file, and not one that torch wrote")
            # torch itself does not compare the checksums that it writes.
            if changed := archive.testzip():
                raise Damaged(f"the file is damaged: the checksum of {changed} is another")
    except zipfile.BadZipFile as error:
        raise Damaged(f"the file is cut off or damaged: {error}") from error
    return _unpickled(path, in_place=True)


def _from_pickle(path: Path) -> object:
    return _unpickled(path, in_place=False)


def _unpickled(path: Path, *, in_place: bool) -> object:
    """Weights and plain values; nothing that a pickle names is called but torch's own for these."""
    try:
        with torch.serialization.safe_globals(_NOT_WANTED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forms of pickles that it may then refuse
            return torch.load(path, map_location="cpu", weights_only=True, mmap=in_place)
    except UnpicklingError as error:
        if name := _asked_for(path, error):
            raise CarriesCode(
                f"the file carries code: it asks for {name} when it is read; only weights are "
                "read here"
            ) from None
        raise Damaged(f"the file cannot be read as weights: {_brief(error)}") from None
    except OSError:
        raise
    # Bytes can make torch's reader stumble in more ways than can be listed.
    except Exception as error:
        raise Damaged(f"the file is cut off or damaged: {_brief(error)}") from error


class _Nothing:
    """Stands for what lies beside the weights: takes whatever it is given and keeps none of it."""

    def __new__(cls, *_: object, **__: object) -> _Nothing:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _empty(*_: object) -> dict[object, object]:
    return {}


# SAM-Med2D's training keeps the optimizer itself beside the weights, others their settings and best
# figures. These names are answered by a stand-in; what they mean elsewhere is never looked up.
_NOT_WANTED: Final[list[Any]] = [
    *(
        (_Nothing, name)
        for name in (
            "torch.optim.adam.Adam",
            "torch.optim.adamw.AdamW",
            "torch.optim.sgd.SGD",
            "builtins.dict",
            "argparse.Namespace",
            "numpy.dtype",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
        )
    ),
    (_empty, "collections.defaultdict"),
]


def _asked_for(path: Path, error: UnpicklingError) -> str | None:
    """What a pickle wanted to call, if that is why it was refused."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return named[1]
    # Later protocols have an opcode for it that torch does not read, and does not name.
    words: list[str] = []
    with contextlib.suppress(ValueError), _pickle_of(path) as file:
        for opcode, argument, _ in pickletools.genops(file):
            if isinstance(argument, str):
                words.append(argument)
            name = ".".join(words[-2:])
            if opcode.name == "STACK_GLOBAL" and not name.startswith(("collections.", "torch.")):
                return name
    return None


def _pickle_of(path: Path) -> IO[bytes]:
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return io.BytesIO(archive.read(name))


def _brief(error: Exception) -> str:
    """The first sentence: torch's go on about how to switch the protection off."""
    return str(error).split("\n", maxsplit=1)[0].split(". ", maxsplit=1)[0] or type(error).__name__


def _recognised(weights: Mapping[str, Tensor]) -> _Kind:
    positions = weights.get("image_encoder.pos_embed")
    if positions is None or positions.dim() != 4 or positions.shape[1] != positions.shape[2]:
        raise OtherModel(
            "the weights are not of SAM or SAM-Med2D: there is no square image_encoder.pos_embed"
        )
    _, rows, _, dim = positions.shape
    size = rows * sam_med2d.PATCH
    if size not in (sam_med2d.IMAGE_SIZE, SAM_SIZE):
        raise OtherModel(
            f"the model is for images of {size} px; {sam_med2d.IMAGE_SIZE} and {SAM_SIZE} px are "
            "understood"
        )
    return _Kind(
        variant=_variant_of(weights, dim=dim),
        image_size=size,
        adapters=any(".Adapter." in key for key in weights),
    )


def _variant_of(weights: Mapping[str, Tensor], *, dim: int) -> Variant:
    hybrid = any(key.startswith("image_encoder.stem_") for key in weights)
    blocks = (re.match(r"image_encoder\.blocks\.(\d+)\.", key) for key in weights)
    depth = len({block[1] for block in blocks if block})
    for variant, numbers in sam_med2d.ENCODERS.items():
        if (numbers.dim, numbers.depth, numbers.hybrid) == (dim, depth, hybrid):
            return variant
    known = ", ".join(f"{name} ({n.dim}, {n.depth})" for name, n in sam_med2d.ENCODERS.items())
    raise OtherModel(f"no variant is {dim} wide and {depth} blocks deep; there are {known}")


def _refuse_other_shapes(weights: Mapping[str, Tensor], kind: _Kind) -> None:
    with torch.device("meta"):
        model = sam_med2d.build(kind.variant, image_size=kind.image_size, adapters=kind.adapters)
    refuse_misfits(
        {key: str(tuple(value.shape)) for key, value in weights.items()},
        {key: str(tuple(value.shape)) for key, value in model.state_dict().items()},
    )


def _in_single_precision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in float32, each with memory of its own; UnusableWeights lists what cannot be."""
    state: dict[str, Tensor] = {}
    problems = []
    seen: set[int] = set()
    for key, value in weights.items():
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            problems.append(f"{key} is {str(value.dtype).removeprefix('torch.')}")
            continue
        if value.layout is not torch.strided or value.device.type != "cpu":
            problems.append(f"{key} has no values of its own")
            continue
        single = value.detach().to(torch.float32).contiguous()
        if not single.isfinite().all():
            problems.append(f"{key} is not finite")
            continue
        where = single.untyped_storage().data_ptr()
        state[key] = single.clone() if where in seen else single
        seen.add(where)
    if problems:
        raise UnusableWeights(f"the weights cannot be used: {'; '.join(few(problems))}")
    return state


def _fresh_adapters(variant: Variant) -> dict[str, Tensor]:
    """Adapters that add nothing: what they add passes a normalisation whose scale is zero.

    That scale learns at once, and through it all the rest.
    """
    with torch.device("meta"):
        encoder = sam_med2d.build_image_encoder(variant)
    return {
        key: torch.zeros(value.shape)
        if ".Adapter.norm." in key
        else random_weight(key, value, seed=FRESH_SEED)
        for name, value in encoder.state_dict().items()
        if ".Adapter." in (key := f"image_encoder.{name}")
    }
