from __future__ import annotations

import threading

import numpy as np
import pytest
from django.db import DatabaseError, connection, transaction

from delineate.annotation import services
from delineate.annotation.drafts import DraftAction, DraftChanges, DraftState, Prompts
from delineate.annotation.models import Draft, MaskRevision, Operation
from delineate.annotation.services import StaleBase
from delineate.annotation.transitions import State
from delineate.audit.models import Event
from delineate.errors import Conflict, Invalid, NotFound
from delineate.projects.models import Role
from mlworker.contract import masks
from mlworker.contract.masks import RunLengths
from mlworker.contract.messages import Point
from tests.delineate import factories
from tests.delineate.annotation.conftest import COLUMNS, MODEL, ROWS, Desk, runs
from tests.delineate.locks import wait_until_somebody_waits_for_a_lock

DOT = DraftChanges(drawn=runs((1, 1)))


def actions(desk: Desk) -> list[str]:
    """What the project's trail tells, oldest first."""
    project_id = desk.task.series.study.project_id
    return list(Event.objects.filter(project_id=project_id).values_list("action", flat=True))


def test_the_first_operation_begins_the_task_and_keeps_the_draft(desk: Desk) -> None:
    assert desk.apply(DOT, base=0) == 1

    desk.task.refresh_from_db()
    draft = Draft.objects.get()
    assert desk.task.state == State.IN_PROGRESS
    assert DraftState.model_validate(draft.state).drawn == runs((1, 1))
    assert Operation.objects.get().by == desk.annotator


def test_a_repeat_is_acknowledged_again_and_changes_nothing(desk: Desk) -> None:
    first = desk.apply(DOT, base=0, sequence=7)

    again = desk.apply(DOT, base=0, sequence=7)

    assert first == again == 1
    assert Operation.objects.count() == 1


def test_a_number_that_belongs_to_another_operation_is_refused(desk: Desk) -> None:
    desk.apply(DOT, base=0, sequence=7)

    with pytest.raises(Conflict) as refusal:
        desk.apply(DOT, base=0, sequence=7, index=1)

    assert refusal.value.code == "sequence_taken"


def test_an_operation_on_an_old_version_is_refused_with_the_draft_as_it_stands(desk: Desk) -> None:
    desk.apply(DOT, base=0)

    with pytest.raises(StaleBase) as refusal:
        desk.apply(DraftChanges(drawn=None), base=0)

    assert refusal.value.version == 1
    assert refusal.value.current.drawn == runs((1, 1))


def test_a_field_that_is_absent_stays_and_null_empties_it(desk: Desk) -> None:
    desk.apply(DraftChanges(drawn=runs((1, 1)), erased=runs((2, 2))), base=0)

    desk.apply(DraftChanges(erased=None), base=1, action=DraftAction.UNDO)

    state = DraftState.model_validate(Draft.objects.get().state)
    assert (state.drawn, state.erased) == (runs((1, 1)), None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (DraftChanges(drawn=masks.empty(4, 4)), "invalid_operation"),
        (DraftChanges(drawn=runs((1, 1), (2, 2)), erased=runs((2, 2))), "invalid_operation"),
    ],
    ids=["another size", "drawn and erased"],
)
def test_masks_that_cannot_be_are_refused(desk: Desk, changes: DraftChanges, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        desk.apply(changes, base=0)

    assert refusal.value.code == code
    assert not Operation.objects.exists()


@pytest.mark.parametrize("forgery", ["another mask", "another slice", "another label", "no seal"])
def test_only_what_the_model_proposed_here_passes_for_its_work(desk: Desk, forgery: str) -> None:
    proposal = desk.proposal(runs((3, 3)), index=1 if forgery == "another slice" else 0)
    if forgery == "another mask":
        proposal = proposal.model_copy(update={"mask": runs((4, 4))})
    if forgery == "no seal":
        proposal = proposal.model_copy(update={"seal": ""})
    if forgery == "another label":
        desk.label = factories.label_of(desk.label.project, "spleen")

    with pytest.raises(Invalid) as refusal:
        desk.apply(DraftChanges(proposal=proposal), base=0, action=DraftAction.PROMPT)

    assert refusal.value.code == "seal_broken"


def test_slices_and_labels_of_others_do_not_exist_here(desk: Desk) -> None:
    elsewhere = factories.new_project("heart")
    desk.label = factories.label_of(elsewhere, "heart")

    with pytest.raises(NotFound) as refusal:
        desk.apply(DOT, base=0)

    assert refusal.value.code == "label_gone"


def test_an_accepted_mask_tells_how_it_came_about(desk: Desk) -> None:
    prompts = Prompts(points=(Point(x=1, y=1, positive=True),))
    first, second = desk.proposal(runs((3, 3), (3, 4))), desk.proposal(runs((3, 3), (3, 5)))
    for version, proposal in enumerate((first, second)):
        changes = DraftChanges(prompts=prompts, proposal=proposal)
        desk.apply(changes, base=version, action=DraftAction.PROMPT)
    desk.apply(DraftChanges(drawn=runs((4, 4)), erased=runs((3, 5))), base=2)

    revision = desk.accept(version=3, seconds=12.0)

    assert RunLengths.model_validate(revision.mask) == runs((3, 3), (4, 4))
    assert revision.first_proposal == first.mask.model_dump(mode="json")
    assert revision.model_digest == MODEL
    assert revision.prompts["points"] == [{"x": 1.0, "y": 1.0, "positive": True}]
    # Of (3,3), (3,5) and (4,4) two were changed by hand.
    assert revision.hand_drawn_share == pytest.approx(2 / 3)
    assert (revision.by, revision.active_seconds, revision.number) == (desk.annotator, 12.0, 1)
    assert actions(desk)[-1] == "mask_accepted"


def test_accepting_the_same_version_again_gives_the_same_revision(desk: Desk) -> None:
    desk.apply(DOT, base=0)

    assert desk.accept(version=1) == desk.accept(version=1)

    desk.apply(DraftChanges(drawn=runs((2, 2))), base=1)
    assert desk.accept(version=2).number == 2
    assert MaskRevision.objects.count() == 2


def test_nothing_drawn_is_accepted_as_an_empty_mask(desk: Desk) -> None:
    revision = desk.accept(version=0)

    assert masks.area(RunLengths.model_validate(revision.mask)) == 0
    assert (revision.model_digest, revision.first_proposal) == ("", None)


def test_what_the_annotator_does_not_see_is_not_accepted(desk: Desk) -> None:
    desk.apply(DOT, base=0)

    with pytest.raises(StaleBase):
        desk.accept(version=0)


def test_a_task_is_submitted_returned_corrected_and_accepted(desk: Desk) -> None:
    desk.apply(DOT, base=0)
    desk.accept(version=1)

    services.submit(desk.task, by=desk.annotator)
    with pytest.raises(Conflict) as closed:
        desk.apply(DOT, base=1)
    services.return_(desk.task, comment=" Too small. ", by=desk.reviewer)
    desk.apply(DraftChanges(drawn=runs((2, 2))), base=1)
    desk.accept(version=2)
    services.submit(desk.task, by=desk.annotator)
    services.accept(desk.task, by=desk.reviewer)

    assert closed.value.code == "task_closed"
    desk.task.refresh_from_db()
    assert desk.task.state == State.ACCEPTED
    assert [r.comment for r in desk.task.reviews.all()] == ["Too small.", ""]
    assert [a for a in actions(desk) if a.startswith("task_")] == [
        "task_submitted",
        "task_returned",
        "task_submitted",
        "task_accepted",
    ]
    assert services.reopen(desk.task, by=desk.reviewer).state == State.IN_PROGRESS


def test_a_task_without_masks_is_not_submitted(desk: Desk) -> None:
    desk.apply(DOT, base=0)

    with pytest.raises(Conflict) as refusal:
        services.submit(desk.task, by=desk.annotator)

    assert refusal.value.code == "nothing_accepted"


def test_changes_that_are_not_accepted_hold_a_submission_and_are_named(desk: Desk) -> None:
    desk.accept(version=0)
    desk.apply(DOT, base=0, index=2)

    with pytest.raises(Conflict) as refusal:
        services.submit(desk.task, by=desk.annotator)

    assert refusal.value.code == "unaccepted_changes"
    assert refusal.value.data["slices"] == [3]
    desk.apply(DraftChanges(drawn=None), base=1, index=2, action=DraftAction.UNDO)
    assert services.submit(desk.task, by=desk.annotator).state == State.SUBMITTED


def test_a_return_says_why(desk: Desk) -> None:
    with pytest.raises(Invalid) as refusal:
        services.return_(desk.task, comment="  ", by=desk.reviewer)

    assert refusal.value.code == "comment_missing"


@pytest.mark.parametrize("act", [services.accept, services.reopen])
def test_an_annotator_does_not_review(desk: Desk, act) -> None:
    with pytest.raises(Exception, match="may not review"):
        act(desk.task, by=desk.annotator)


@pytest.mark.parametrize("model", [MaskRevision, Operation])
def test_the_database_refuses_to_change_what_was_recorded(desk: Desk, model) -> None:
    desk.apply(DOT, base=0)
    desk.accept(version=1)

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        model.objects.update(by=desk.reviewer)


def test_a_task_goes_with_its_study(desk: Desk) -> None:
    desk.apply(DOT, base=0)
    desk.accept(version=1)

    desk.task.series.study.delete()

    assert not MaskRevision.objects.exists()
    with pytest.raises(NotFound):
        services.submit(desk.task, by=desk.annotator)


@pytest.mark.django_db(transaction=True)
def test_of_two_operations_on_the_same_version_exactly_one_wins() -> None:
    project = factories.new_project("liver")
    task = factories.new_task(factories.new_series(factories.new_study(project)), state=State.OPEN)
    people = [factories.new_member(project, Role.ANNOTATOR) for _ in range(2)]
    outcomes: list[object] = []
    both = threading.Barrier(2)

    def draw(number: int) -> None:
        desk = Desk(task, factories.label_of(project, "liver"), people[number], people[number])
        changes = DraftChanges(drawn=runs((number, number)))
        both.wait()
        try:
            outcomes.append(desk.apply(changes, base=0))
        except StaleBase as error:
            outcomes.append(error.version)
        finally:
            connection.close()

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == [1, 1]
    assert Operation.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_repeat_that_overtakes_its_first_is_acknowledged_all_the_same() -> None:
    project = factories.new_project("liver")
    task = factories.new_task(factories.new_series(factories.new_study(project)), state=State.OPEN)
    annotator = factories.new_member(project, Role.ANNOTATOR)
    desk = Desk(task, factories.label_of(project, "liver"), annotator, annotator)
    versions: list[int] = []

    def repeat() -> None:
        try:
            versions.append(desk.apply(DOT, base=0, sequence=7))
        finally:
            connection.close()

    # A socket broke while its operation was under way, and the page sent it again on the next.
    repeating = threading.Thread(target=repeat)
    with transaction.atomic():
        versions.append(desk.apply(DOT, base=0, sequence=7))
        repeating.start()
        wait_until_somebody_waits_for_a_lock()
    repeating.join()

    assert versions == [1, 1]
    assert Operation.objects.count() == 1


def test_the_mask_on_screen_is_what_hands_made_of_the_proposal() -> None:
    rng = np.random.default_rng(3)
    proposal, drawn, erased = (rng.random((ROWS, COLUMNS)) < 0.4 for _ in range(3))

    composed = masks.compose(proposal, drawn=drawn, erased=erased)

    assert composed[drawn & ~erased].all()
    assert not composed[erased].any()
    assert (composed == proposal)[~drawn & ~erased].all()
