from __future__ import annotations

import hashlib

import pytest
import safetensors.torch
import torch

from mlworker.model import sam_med2d
from mlworker.model.checkpoint import (
    METADATA_KEY,
    Checkpoint,
    CheckpointError,
    Metadata,
    OtherModel,
    code_version,
    digest,
    digest_of_file,
    load_strictly,
    pack,
    untrained,
)

METADATA = Metadata(variant="vit_t", image_size=256, adapters=True, trained=False, origin="a test")

TENSOR = {"a": torch.zeros(1)}


def _written(tmp_path, data):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(data)
    return path


def test_the_digest_is_sha256_of_the_file(small_checkpoint):
    data = small_checkpoint.read_bytes()

    assert digest(data) == digest_of_file(small_checkpoint) == hashlib.sha256(data).hexdigest()


def test_a_seed_gives_the_same_model_on_every_machine(small_checkpoint):
    """Pinned: a new installation's model must be the one that was looked at."""
    assert digest(untrained("vit_t", seed=15)) == digest_of_file(small_checkpoint)
    assert digest_of_file(small_checkpoint).startswith("10f78fedf8dedd29")
    assert digest(untrained("vit_t", seed=16)) != digest_of_file(small_checkpoint)


def test_an_untrained_model_says_so(small_checkpoint):
    metadata = Checkpoint(small_checkpoint).metadata

    assert metadata == METADATA.model_copy(update={"origin": "seed 15"})
    assert not metadata.trained


def test_a_checkpoint_comes_back_part_by_part(tmp_path):
    model = sam_med2d.build("vit_t")
    expected = {key: value.clone() for key, value in model.state_dict().items()}

    checkpoint = Checkpoint(_written(tmp_path, pack(model.state_dict(), METADATA)))
    parts = {
        "image_encoder": checkpoint.image_encoder(),
        "prompt_encoder": checkpoint.prompt_encoder(),
        "mask_decoder": checkpoint.mask_decoder(),
    }

    loaded = {
        f"{name}.{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert not any(part.training for part in parts.values())
    assert not any(p.requires_grad for part in parts.values() for p in part.parameters())


def test_a_loaded_part_outlives_its_file(tmp_path, small_checkpoint):
    path = _written(tmp_path, small_checkpoint.read_bytes())
    decoder = Checkpoint(path).mask_decoder()
    before = {key: value.clone() for key, value in decoder.state_dict().items()}

    path.write_bytes(b"\0" * 100)

    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())


def test_the_same_state_gives_the_same_bytes_in_any_order():
    state = {"a": torch.arange(3.0), "b": torch.arange(4.0)[::2]}

    assert pack(state, METADATA) == pack(dict(reversed(state.items())), METADATA)


def test_weights_that_do_not_fit_are_listed():
    state = dict(sam_med2d.build_prompt_encoder("vit_b").state_dict())
    del state["no_mask_embed.weight"]
    state["another.weight"] = torch.zeros(1)
    state["not_a_point_embed.weight"] = torch.zeros(1, 128)
    state["point_embeddings.0.weight"] = state["point_embeddings.0.weight"].half()

    with pytest.raises(CheckpointError) as refusal:
        load_strictly(sam_med2d.build_prompt_encoder("vit_b"), state)

    assert str(refusal.value) == (
        "the weights do not fit the model: no_mask_embed.weight is missing; "
        "another.weight is not expected; "
        "not_a_point_embed.weight is float32 (1, 128) instead of float32 (1, 256); "
        "point_embeddings.0.weight is float16 (1, 256) instead of float32 (1, 256)"
    )


def test_what_does_not_fit_is_not_listed_without_end():
    with pytest.raises(OtherModel) as refusal:
        load_strictly(sam_med2d.build_mask_decoder(), {})

    assert str(refusal.value).count(" is missing") == 10
    assert str(refusal.value).endswith("; and 110 more like it")


def test_weights_may_be_stored_in_half_precision(tmp_path):
    state = sam_med2d.build("vit_t").state_dict()

    data = pack(state, METADATA, precision=torch.float16)

    assert len(data) < 0.55 * len(pack(state, METADATA))
    loaded = Checkpoint(_written(tmp_path, data)).mask_decoder().state_dict()
    assert all(
        torch.equal(value, state[f"mask_decoder.{key}"].half().float())
        for key, value in loaded.items()
    )


def test_a_weight_that_half_precision_cannot_hold_is_refused():
    with pytest.raises(CheckpointError, match="large does not fit float16"):
        pack({"large": torch.tensor([7e4])}, METADATA, precision=torch.float16)


def test_what_a_checkpoint_says_of_itself_comes_back(tmp_path):
    stated = METADATA.model_copy(
        update={
            "preparation": 2,
            "parent": "a" * 64,
            "training_data": "b" * 64,
            "code_version": code_version(),
            "metrics": {"box dice": 0.875},
        }
    )

    assert Checkpoint(_written(tmp_path, pack(TENSOR, stated))).metadata == stated


def test_a_checkpoint_of_before_a_field_was_added_is_read(tmp_path):
    stated = (
        '{"format":1,"variant":"vit_t","image_size":256,"adapters":true,"preparation":1,'
        '"trained":false,"origin":"a test"}'
    )
    data = safetensors.torch.save(TENSOR, metadata={METADATA_KEY: stated})

    assert Checkpoint(_written(tmp_path, data)).metadata == METADATA


@pytest.mark.parametrize("adapters", [True, False])
def test_adapters_are_as_the_metadata_say(tmp_path, adapters):
    state = sam_med2d.build("vit_t", adapters=not adapters).state_dict()
    metadata = METADATA.model_copy(update={"adapters": adapters})
    checkpoint = Checkpoint(_written(tmp_path, pack(state, metadata)))

    with pytest.raises(CheckpointError, match=r"Adapter.* is (missing|not expected)"):
        checkpoint.image_encoder()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of ours",
        b"\xff" * 64,
        safetensors.torch.save(TENSOR),
        safetensors.torch.save(TENSOR, metadata={"format": "pt"}),
        safetensors.torch.save(TENSOR, metadata={METADATA_KEY: "{}"}),
        safetensors.torch.save(
            TENSOR,
            metadata={METADATA_KEY: METADATA.model_dump_json().replace('"format":1', '"format":2')},
        ),
        pack(TENSOR, METADATA)[:-1],
    ],
    ids=[
        "empty",
        "text",
        "absurd length",
        "no metadata",
        "another's metadata",
        "incomplete metadata",
        "a later format",
        "cut off",
    ],
)
def test_a_file_that_is_no_checkpoint_of_ours_is_refused(tmp_path, data):
    with pytest.raises(CheckpointError, match="not a checkpoint of ours"):
        Checkpoint(_written(tmp_path, data))
