"""Everybody's checkpoints are read for what they are, or refused for a reason with a name."""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mlworker.contract.messages import Variant
from mlworker.model import foreign, sam_med2d
from mlworker.model.adapter import without_adapters
from mlworker.model.checkpoint import (
    Checkpoint,
    CheckpointError,
    Metadata,
    OtherModel,
    digest,
    digest_of_file,
    pack,
)
from mlworker.model.foreign import (
    CarriesCode,
    Damaged,
    NoCheckpoint,
    UnusableWeights,
    converted,
    read_foreign,
)
from mlworker.model.sam_med2d import Encoder
from tests.mlworker import reference

TINY = Encoder(dim=32, depth=2, heads=2, global_blocks=(1,))
TINY_HYBRID = Encoder(dim=16, depth=1, heads=2, global_blocks=(0,), hybrid=True)


@pytest.fixture(autouse=True)
def _tiny_variants(monkeypatch):
    """ViT-B's weights would take seconds each time; what is done with them is the same."""
    tiny: dict[Variant, Encoder] = {"vit_b": TINY, "hybrid_t": TINY_HYBRID}
    monkeypatch.setattr(sam_med2d, "ENCODERS", {**sam_med2d.ENCODERS, **tiny})


def weights(*, variant="vit_b", image_size=256, adapters=True):
    """The reference's weights for a model."""
    with torch.device("meta"):
        model = sam_med2d.build(variant, image_size=image_size, adapters=adapters)
    return {key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()}


@functools.cache
def weight(key, shape):
    """One of them, made once: all models here share the decoder, which is the most of each."""
    return reference.weights([(key, shape)])[key]


@pytest.fixture
def written(tmp_path):
    """Save something as torch does; the file."""

    def _written(content, **options):
        path = tmp_path / "checkpoint.pth"
        torch.save(content, path, **options)
        return path

    return _written


def equal(one, other):
    """Whether two states hold the same weights under the same names."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def loaded(data, tmp_path):
    """The state that a checkpoint's bytes load as, strictly, part by part."""
    path = tmp_path / "loaded.safetensors"
    path.write_bytes(data)
    checkpoint = Checkpoint(path)
    return {
        f"{name}.{key}": value
        for name in ("image_encoder", "prompt_encoder", "mask_decoder")
        for key, value in getattr(checkpoint, name)().state_dict().items()
    }


def test_the_published_file_is_read_with_its_optimizer_left_behind(written, tmp_path):
    """SAM-Med2D's training saves the optimizer itself, which only running code could bring back."""
    state = weights()
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    path = written({"model": state, "optimizer": optimizer})

    read, metadata = read_foreign(path)

    assert equal(read, state)
    assert metadata == Metadata(
        variant="vit_b",
        image_size=256,
        adapters=True,
        trained=True,
        origin="a SAM of vit_b at 256 px with adapters",
        parent=digest_of_file(path),
    )
    assert equal(loaded(converted(path), tmp_path), state)


@pytest.mark.parametrize(
    "beside",
    [
        {"args": argparse.Namespace(lr=1e-4), "epoch": 3},
        {"best": np.float64(0.9), "history": [1.5, None]},
        {"optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]).state_dict()},
    ],
    ids=["settings", "a figure of numpy's", "an optimizer's state"],
)
def test_what_commonly_lies_beside_weights_is_left_behind(written, beside):
    state = weights(adapters=False)

    assert equal(read_foreign(written({"model": state, **beside}))[0], state)


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
    ids=["plain", "under a name", "of several cards"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the form before 1.6"])
def test_a_state_dict_without_adapters_stays_without(written, content, zipped):
    state = weights(adapters=False)
    path = written(content(state), _use_new_zipfile_serialization=zipped)

    read, metadata = read_foreign(path)

    assert equal(read, state)
    assert (metadata.adapters, metadata.image_size) == (False, 256)
    assert metadata.origin == "a SAM of vit_b at 256 px without adapters"


def test_a_state_dict_may_be_of_safetensors(tmp_path):
    state = weights(variant="hybrid_t", adapters=False)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)

    read, metadata = read_foreign(path)

    assert equal(read, state)
    assert metadata.variant == "hybrid_t"


def test_an_original_sam_is_brought_to_256_px_with_adapters_that_add_nothing(written, tmp_path):
    state = weights(image_size=1024, adapters=False)
    path = written(state)

    read, metadata = read_foreign(path)

    assert equal(without_adapters(read), sam_med2d.resize_positions(state, image_size=256))
    assert (metadata.image_size, metadata.adapters) == (256, True)
    assert metadata.origin == (
        "a SAM of vit_b at 1024 px without adapters, positions resized to 256 px, fresh adapters"
    )
    data = converted(path)
    assert loaded(data, tmp_path).keys() == weights().keys()


def test_an_original_sam_may_stay_at_1024_px_or_without_adapters(written):
    state = weights(image_size=1024, adapters=False)
    path = written(state)

    read, metadata = read_foreign(path, image_size=1024)
    assert equal(read, state)
    assert (metadata.image_size, metadata.adapters) == (1024, False)

    read, metadata = read_foreign(path, adapters="keep")
    assert equal(read, sam_med2d.resize_positions(state, image_size=256))
    assert (metadata.image_size, metadata.adapters) == (256, False)

    read, metadata = read_foreign(path, image_size=1024, adapters="fresh")
    assert equal(without_adapters(read), state)
    assert (metadata.image_size, metadata.adapters) == (1024, True)


def test_the_original_vit_b_becomes_the_published_size(written, portable, monkeypatch):
    """The real ViT-B, against the positions that the published code makes of it."""
    monkeypatch.undo()
    with torch.device("meta"):
        large = sam_med2d.build("vit_b", image_size=1024, adapters=False).state_dict()
    shapes = {key: tuple(value.shape) for key, value in large.items()}
    resized = {
        key.removeprefix("from_sam_1024/"): value
        for key, value in portable.items()
        if key.startswith("from_sam_1024/")
    }
    # Only what is compared is made by the rule; the rest is one number each, and takes no time.
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    made = reference.weights([(key, shapes[key]) for key in resized], prefix="sam1024/")

    read, metadata = read_foreign(written(state | made), adapters="keep")

    assert len(resized) == 4
    assert all(np.abs(read[key].numpy() - value).max() < 1e-6 for key, value in resized.items())
    assert {key: tuple(value.shape) for key, value in read.items()} == {
        key: shape for key, shape in reference.published_shapes().items() if ".Adapter." not in key
    }
    assert (metadata.variant, metadata.image_size, metadata.adapters) == ("vit_b", 256, False)


@pytest.mark.parametrize("variant", ["vit_b", "hybrid_t"])
def test_fresh_adapters_change_nothing_and_can_learn(written, tmp_path, variant):
    path = written(weights(variant=variant, adapters=False))
    slices = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(3))

    def encoder(data):
        path = tmp_path / "one.safetensors"
        path.write_bytes(data)
        return Checkpoint(path).image_encoder()

    adapted = encoder(converted(path, adapters="fresh"))
    with torch.inference_mode():
        expected = encoder(converted(path))(slices)
        assert torch.equal(adapted(slices), expected)

    adapted.requires_grad_()
    adapted(slices).square().mean().backward()
    gradients = {
        key: parameter.grad
        for key, parameter in adapted.named_parameters()
        if ".Adapter.norm." in key
    }
    assert gradients
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


def test_adapters_are_dropped_or_made_anew(written):
    state = weights()
    path = written({"model": state})

    dropped, metadata = read_foreign(path, adapters="drop")
    assert equal(dropped, without_adapters(state))
    assert not metadata.adapters
    assert metadata.origin.endswith("with adapters, adapters dropped")

    fresh, metadata = read_foreign(path, adapters="fresh")
    assert equal(without_adapters(fresh), without_adapters(state))
    assert fresh.keys() == state.keys()
    assert not equal(fresh, state)
    assert metadata.adapters


def test_equal_files_give_equal_bytes(written):
    path = written(weights(image_size=1024, adapters=False))

    first, again = converted(path), converted(path)

    assert digest(first) == digest(again)
    assert digest(first) != digest(converted(path, half=True))


def test_a_checkpoint_of_ours_passes_unchanged(tmp_path, small_checkpoint):
    """Also one that was written before a field of the metadata existed."""
    old = tmp_path / "old.safetensors"
    state = {key: value.half() for key, value in weights(adapters=False).items()}
    said = {"variant": "vit_b", "image_size": 256, "adapters": False, "preparation": 2}
    said |= {"trained": True, "origin": "an older version", "format": 1}
    safetensors.torch.save_file(state, old, metadata={"delineate": json.dumps(said)})

    for path in (small_checkpoint, old):
        assert converted(path) == path.read_bytes()
        assert read_foreign(path)[1] == Checkpoint(path).metadata


def test_what_is_changed_of_ours_says_from_what(tmp_path):
    parent = tmp_path / "parent.safetensors"
    stated = Metadata(
        variant="vit_b",
        image_size=256,
        adapters=True,
        preparation=2,
        trained=False,
        origin="seed 3",
    )
    parent.write_bytes(pack(weights(), stated))

    _, metadata = read_foreign(parent, adapters="drop")

    assert metadata == stated.model_copy(
        update={
            "adapters": False,
            "origin": "seed 3, adapters dropped",
            "parent": digest_of_file(parent),
        }
    )


def test_half_precision_takes_half_the_space_and_is_computed_with_in_single(written, tmp_path):
    state = weights()
    path = written(state)

    data = converted(path, half=True)

    assert len(data) < 0.55 * len(converted(path))
    assert equal(loaded(data, tmp_path), {key: v.half().float() for key, v in state.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(written, dtype):
    state = {key: value.to(dtype) for key, value in weights(adapters=False).items()}

    read, _ = read_foreign(written(state))

    assert equal(read, {key: value.float() for key, value in state.items()})


def test_weights_that_share_memory_are_written_apart(written, tmp_path):
    state = weights(adapters=False)
    one, other = "prompt_encoder.no_mask_embed.weight", "prompt_encoder.not_a_point_embed.weight"
    state[one] = state[other]

    assert equal(loaded(converted(written(state)), tmp_path), state)


class File:
    """Writes a file when it is unpickled by something that runs what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "it ran")


class Program(File):
    """The same through a program."""

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Code(File):
    """The same through the interpreter."""

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize(
    "save",
    [
        lambda content, path: torch.save(content, path),
        lambda content, path: torch.save(content, path, pickle_protocol=4),
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=5)),
    ],
    ids=["zip", "a newer zip", "the form before 1.6", "a pickle", "a newer pickle"],
)
@pytest.mark.parametrize(
    ("canary", "asks_for"), [(File, "getattr|pathlib"), (Program, "posix.system"), (Code, "exec")]
)
@pytest.mark.parametrize(
    "place",
    [
        lambda canary: {"model": OrderedDict(a=[1.0]), "extra": canary},
        lambda canary: {"model": {"a": canary}},
        lambda canary: canary,
    ],
    ids=["beside", "among", "instead"],
)
def test_a_file_that_carries_code_is_refused_by_name_and_does_not_run(
    tmp_path, save, canary, asks_for, place
):
    path, trace = tmp_path / "checkpoint.pth", tmp_path / "it-ran"
    save(place(canary(trace)), path)

    with pytest.raises(CarriesCode, match=f"carries code: it asks for .*({asks_for})"):
        read_foreign(path)

    assert not trace.exists()


@pytest.mark.parametrize("canary", [File, Program, Code])
def test_the_canaries_would_sing(tmp_path, canary):
    pickle.loads(pickle.dumps(canary(tmp_path / "it-ran")))

    assert (tmp_path / "it-ran").exists()


def test_a_program_of_torch_is_code(tmp_path):
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("program/code/__torch__.py", "")

    with pytest.raises(CarriesCode, match="TorchScript"):
        read_foreign(path)


def test_stand_ins_keep_nothing_of_what_they_are_given(written):
    """A name that is answered by a stand-in does nothing, whatever it is asked to hold."""
    state = weights(adapters=False)
    hidden = argparse.Namespace(**state)

    with pytest.raises(NoCheckpoint):
        read_foreign(written(hidden))
    with pytest.raises(NoCheckpoint):
        read_foreign(written({"model": hidden}))


def _cut(data):
    return data[: len(data) // 2]


def _flipped(data):
    """One bit of a weight is another."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def _archive(compression=zipfile.ZIP_STORED, name="something.txt"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, b"\0" * 1000)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "the form before 1.6"])
@pytest.mark.parametrize("keep", [1, 3, 10, 200, 5_000, -200_000, -1])
def test_a_file_that_is_cut_off_is_refused(written, zipped, keep):
    path = written(weights(adapters=False), _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(CheckpointError):  # of which kind, depends on what can still be read
        read_foreign(path)


def test_a_changed_bit_is_seen(written):
    path = written(weights(adapters=False))
    path.write_bytes(_flipped(path.read_bytes()))

    with pytest.raises(Damaged, match="checksum"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (b"", NoCheckpoint, "the file is empty"),
        (b"\n", NoCheckpoint, "neither of torch nor safetensors"),
        (b"\x89PNG\r\n\x1a\n and so on", NoCheckpoint, "neither of torch nor safetensors"),
        (_archive(), NoCheckpoint, "not one that torch wrote"),
        (_archive(zipfile.ZIP_DEFLATED, "a/data.pkl"), NoCheckpoint, "not one that torch wrote"),
        (_archive(name="a/data.pkl"), Damaged, "."),
        (b"\x80\x02}q\x00.", Damaged, "."),
        (b"\xff" * 8 + b"{" + b" " * 50, Damaged, "."),
        (_cut(safetensors.torch.save({"a": torch.zeros(100)})), Damaged, "."),
        (pickle.dumps({"a": 1}, protocol=5), Damaged, "."),
    ],
    ids=[
        "empty",
        "a line",
        "a picture",
        "a zip file",
        "a compressed one",
        "a zip file of zeros",
        "a pickle that torch did not write",
        "a header of absurd length",
        "safetensors that are cut off",
        "a pickle of a later protocol",
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, data, error, sentence):
    path = tmp_path / "file"
    path.write_bytes(data)

    with pytest.raises(error, match=sentence):
        read_foreign(path)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {},
        {"model": {}},
        {"epoch": 3, "loss": 0.5},
        {"weight": "text"},
        None,
    ],
    ids=["a tensor", "a list", "nothing", "no weights", "figures", "text", "None"],
)
def test_a_file_of_torch_without_weights_is_no_checkpoint(written, content):
    with pytest.raises(NoCheckpoint):
        read_foreign(written(content))


@pytest.mark.parametrize("name", ["folder", "none"])
def test_a_folder_or_nothing_is_no_checkpoint(tmp_path, name):
    (tmp_path / "folder").mkdir()

    with pytest.raises(NoCheckpoint, match=r"a folder|not there"):
        read_foreign(tmp_path / name)


def test_weights_of_another_architecture_are_listed_and_not_without_end(written):
    state = weights(adapters=False)
    gone = [key for key in state if key.startswith("mask_decoder.")]
    for key in gone:
        del state[key]
    state["head.weight"] = torch.zeros(2)
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 7)

    with pytest.raises(OtherModel) as refusal:
        read_foreign(written(state))

    said = str(refusal.value)
    assert said.count(" is missing") == 10
    assert f"and {len(gone) - 10} more like it" in said
    assert "head.weight is not expected" in said
    assert "prompt_encoder.no_mask_embed.weight is (1, 7) instead of (1, 256)" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("image_encoder.pos_embed"), "not of SAM or SAM-Med2D"),
        (
            lambda state: state.update({"image_encoder.pos_embed": torch.zeros(1, 16, 8, 32)}),
            "not of SAM or SAM-Med2D",
        ),
        (
            lambda state: state.update({"image_encoder.pos_embed": torch.zeros(1, 32, 32, 32)}),
            "for images of 512 px",
        ),
        (
            lambda state: state.update({"image_encoder.pos_embed": torch.zeros(1, 16, 16, 384)}),
            "no variant is 384 wide and 2 blocks deep",
        ),
        (
            lambda state: state.update({"image_encoder.blocks.7.norm1.bias": torch.zeros(32)}),
            "no variant is 32 wide and 3 blocks deep",
        ),
        (
            lambda state: state.pop("image_encoder.blocks.0.Adapter.norm.bias"),
            "blocks.0.Adapter.norm.bias is missing",
        ),
    ],
    ids=["no positions", "not square", "another size", "another width", "deeper", "half adapters"],
)
def test_another_architecture_is_refused_for_what_differs(written, change, sentence):
    state = weights()
    change(state)

    with pytest.raises(OtherModel, match=sentence):
        read_foreign(written(state))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.full((1, 256), torch.nan), "is not finite"),
        (torch.full((1, 256), -torch.inf), "is not finite"),
        (torch.full((1, 256), 1e300, dtype=torch.float64), "is not finite"),
        (torch.zeros(1, 256, dtype=torch.int64), "is int64"),
        (torch.zeros(1, 256, dtype=torch.int8), "is int8"),
        (torch.zeros(1, 256, dtype=torch.bool), "is bool"),
        (torch.zeros(1, 256, dtype=torch.complex64), "is complex64"),
        (torch.zeros(1, 256).to_sparse(), "has no values of its own"),
        (torch.zeros(1, 256, device="meta"), "has no values of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype} {value.layout}",
)
def test_weights_that_are_no_finite_numbers_are_refused(written, value, sentence):
    key = "prompt_encoder.no_mask_embed.weight"
    state = weights(adapters=False) | {key: value}

    with pytest.raises(UnusableWeights, match=f"{key} {sentence}"):
        read_foreign(written(state))


def test_many_unusable_weights_are_not_listed_without_end(written):
    state = {key: value * torch.nan for key, value in weights(adapters=False).items()}

    with pytest.raises(UnusableWeights) as refusal:
        read_foreign(written(state))

    assert str(refusal.value).count("is not finite") == 10
    assert f"and {len(state) - 10} more" in str(refusal.value)


def test_a_weight_beyond_half_s_range_is_not_stored_in_half(written):
    key = "prompt_encoder.no_mask_embed.weight"
    path = written(weights(adapters=False) | {key: torch.full((1, 256), 1e5)})

    assert converted(path)
    with pytest.raises(CheckpointError, match=f"{key} does not fit float16"):
        converted(path, half=True)


def test_a_small_model_cannot_be_made_a_large_one(written):
    with pytest.raises(OtherModel, match="256 px cannot become one of 1024 px"):
        read_foreign(written(weights()), image_size=1024)


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        ({"variant": "vit_l"}, OtherModel),
        ({"adapters": False}, OtherModel),
        ({"image_size": 1024}, OtherModel),
        ({"image_size": 10**9}, CheckpointError),
        ({"format": 2}, CheckpointError),
        ({"metrics": {"dice": None}}, CheckpointError),
    ],
    ids=str,
)
def test_one_of_ours_that_says_what_is_not_so_is_refused(tmp_path, stated, error):
    said = {"variant": "vit_b", "image_size": 256, "adapters": True, "format": 1}
    said |= {"trained": True, "origin": "a test", **stated}
    path = tmp_path / "checkpoint.safetensors"
    safetensors.torch.save_file(weights(), path, metadata={"delineate": json.dumps(said)})

    with pytest.raises(error):
        read_foreign(path)


def test_every_refusal_is_of_one_family():
    for error in (NoCheckpoint, Damaged, CarriesCode, OtherModel, UnusableWeights):
        assert issubclass(error, CheckpointError)
        assert issubclass(error, ValueError)
    assert foreign.SAM_SIZE == 1024
