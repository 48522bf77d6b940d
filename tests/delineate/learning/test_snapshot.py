"""What is frozen is what was accepted, and can be written again until somebody is erased."""

from __future__ import annotations

import numpy as np
import pytest

from delineate import storage
from delineate.annotation.transitions import State
from delineate.errors import Conflict
from delineate.jobs import JobState
from delineate.learning import erased, snapshot
from delineate.learning.models import Part, TrainingRun
from delineate.learning.snapshot import NothingToLearn
from delineate.registry.models import ModelVersion
from delineate.studies.models import Encoding, Slice
from mlworker.contract import masks
from mlworker.contract.artifacts import pack_array
from mlworker.contract.learning import LearningSet
from tests.delineate import factories
from tests.delineate.learning.conftest import CANDIDATE, add_subject


def test_the_set_is_the_newest_reviewed_masks_with_their_images(project, model):
    revisions = add_subject(project, "S-000000000009")
    other = np.ones((8, 10), bool)
    newest = factories.accept_mask(
        revisions[0].task, other, index=0, label=factories.label_of(project, "liver")
    )
    frozen = snapshot.freeze(project, parent=model)
    content = LearningSet.model_validate_json(storage.get(frozen.key))
    assert len(content.items) == 27
    (item,) = (item for item in content.items if item.slice_id == str(newest.slice_id))
    (mask,) = item.masks
    assert mask.revision_id == str(newest.id)
    assert masks.decode(mask.mask).all()
    assert item.image.pixels_digest == newest.slice.pixels_digest
    assert snapshot.stored(frozen).digest == frozen.digest


def test_masks_that_nobody_reviewed_or_that_show_nothing_are_not_learnt_from(model):
    project = factories.new_project("liver")
    task = factories.new_task(
        factories.new_series(factories.new_study(project)), state=State.SUBMITTED
    )
    label = factories.label_of(project, "liver")
    factories.accept_mask(task, np.ones((8, 10), bool), index=0, label=label)
    with pytest.raises(NothingToLearn):
        snapshot.freeze(project, parent=model)
    task.state = State.ACCEPTED
    task.save()
    factories.accept_mask(task, np.zeros((8, 10), bool), index=0, label=label)
    with pytest.raises(NothingToLearn):
        snapshot.freeze(project, parent=model)


def test_a_set_that_is_gone_is_written_again_byte_for_byte(project, model):
    frozen = snapshot.freeze(project, parent=model)
    before = storage.get(frozen.key)
    storage.delete(frozen.key)
    add_subject(project, "S-000000000009")
    snapshot.stored(frozen)
    assert storage.get(frozen.key) == before


def test_a_deleted_study_takes_its_masks_out_of_the_store_and_marks_who_learnt_them(project, model):
    frozen = snapshot.freeze(project, parent=model)
    candidate = factories.new_model(CANDIDATE, is_default=False)
    child = factories.new_model("ef" * 32, is_default=False)
    ModelVersion.objects.filter(digest=child.digest).update(parent=CANDIDATE)
    child.refresh_from_db()
    TrainingRun.objects.create(
        project=project,
        number=1,
        snapshot=frozen,
        parent=model,
        recipe={},
        state=JobState.DONE,
        candidate=candidate,
    )
    erased.sweep()
    assert storage.exists(frozen.key)
    assert not erased.has_learnt_from_erased(child)
    learnt = frozen.items.filter(part=Part.TRAIN)[0].pseudonym
    project.studies.filter(subject__pseudonym=learnt).delete()

    erased.sweep()

    assert not storage.exists(frozen.key)
    assert erased.has_learnt_from_erased(candidate)
    assert erased.has_learnt_from_erased(child)
    assert not erased.has_learnt_from_erased(model)
    with pytest.raises(Conflict, match="gone") as refusal:
        snapshot.stored(frozen)
    assert refusal.value.code == "set_changed"
    assert frozen.items.filter(pseudonym=learnt).count() == 3  # digests stay


def test_who_was_learnt_from_and_is_held_out_since_judges_nothing(project, model):
    frozen = snapshot.freeze(project, parent=model)
    learnt = frozen.items.filter(part=Part.TRAIN)[0].pseudonym
    candidate = factories.new_model(CANDIDATE, is_default=False)
    TrainingRun.objects.create(
        project=project, number=1, snapshot=frozen, parent=model, recipe={}, candidate=candidate
    )
    project.subject_parts.filter(pseudonym=learnt).update(part=Part.HELD_OUT)

    after = snapshot.freeze(project, parent=candidate)

    assert not after.items.filter(pseudonym=learnt).exists()
    assert after.left_out == 1
    assert snapshot.freeze(project, parent=model).items.filter(pseudonym=learnt).exists()


def test_near_duplicates_across_the_parts_are_found(project, model):
    frozen = snapshot.freeze(project, parent=model)
    by = np.random.default_rng(0)
    for item in frozen.items.all():
        _give_embedding(item.slice_id, by.normal(size=(256, 16, 16)), model)
    assert snapshot.near_duplicates(frozen, model_digest=model.digest) == []
    learnt, judging = (frozen.items.filter(part=part)[0].slice_id for part in Part)
    same = by.normal(size=(256, 16, 16))
    _give_embedding(learnt, same, model)
    _give_embedding(judging, same + by.normal(size=same.shape) * 0.001, model)
    assert snapshot.near_duplicates(frozen, model_digest=model.digest) == [
        {"train": str(learnt), "held_out": str(judging)}
    ]


def _give_embedding(slice_id, values, model):
    encoding, _ = Encoding.objects.get_or_create(
        slice=Slice.objects.get(id=slice_id),
        model_digest=model.digest,
        defaults={
            "embedding_key": f"embeddings/{slice_id}.npy",
            "state": JobState.DONE,
            "priority": 6,
        },
    )
    storage.put(encoding.embedding_key, pack_array(values.astype(np.float16)))
