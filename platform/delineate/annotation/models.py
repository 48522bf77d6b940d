"""Tasks, drafts with their journal, mask revisions, reviews."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from delineate.annotation.transitions import State
from delineate.projects.models import Label
from delineate.studies.models import Series, Slice


class Task(models.Model):
    """The delineation of one series."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    series = models.OneToOneField(Series, on_delete=models.CASCADE, related_name="task")
    state = models.CharField(
        max_length=12, choices=[(s.value, s.value) for s in State], default=State.OPEN
    )
    created_at = models.DateTimeField(default=timezone.now)
    state_changed_at = models.DateTimeField(default=timezone.now)
    submitted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="submitted_tasks",
    )

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=[s.value for s in State]),
                name="annotation_task_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"task {self.id} ({self.state})"


class Draft(models.Model):
    """Work in progress on one slice and label: ``state`` is a drafts.DraftState as JSON.

    ``version`` counts the operations applied; ``accepted_version`` is the one last frozen into a
    revision (0: none), so "has unaccepted changes" is ``version > accepted_version``.
    """

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="drafts")
    slice = models.ForeignKey(Slice, on_delete=models.CASCADE, related_name="drafts")
    label = models.ForeignKey(Label, on_delete=models.PROTECT, related_name="drafts")
    version = models.PositiveIntegerField(default=0)
    accepted_version = models.PositiveIntegerField(default=0)
    state = models.JSONField(default=dict)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["slice__index", "label__value"]
        constraints = [
            models.UniqueConstraint(
                fields=["slice", "label"], name="annotation_draft_once_per_slice_and_label"
            ),
            models.CheckConstraint(
                condition=models.Q(accepted_version__lte=models.F("version")),
                name="annotation_draft_accepted_not_ahead",
            ),
        ]

    def __str__(self) -> str:
        return f"draft {self.slice_id}/{self.label_id} v{self.version}"


class Operation(models.Model):
    """The draft's journal: what was done, by whom, in order. Append-only.

    ``changes`` assigns fields of the draft's state (drafts.DraftChanges); ``version`` is the
    draft's after it. A client numbers its operations, so that a repeat after a lost answer is
    recognised.
    """

    draft = models.ForeignKey(Draft, on_delete=models.CASCADE, related_name="operations")
    version = models.PositiveIntegerField()
    client_id = models.UUIDField()
    sequence = models.PositiveIntegerField()
    action = models.CharField(max_length=20)  # drafts.DraftAction
    changes = models.JSONField()
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="draft_operations"
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["draft", "version"]
        constraints = [
            models.UniqueConstraint(
                fields=["draft", "version"], name="annotation_operation_version_once"
            ),
            models.UniqueConstraint(
                fields=["client_id", "sequence"], name="annotation_operation_sequence_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} -> v{self.version}"


class MaskRevision(models.Model):
    """A mask that somebody accepted for a slice and label. Append-only; the newest one counts."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="revisions")
    slice = models.ForeignKey(Slice, on_delete=models.CASCADE, related_name="revisions")
    label = models.ForeignKey(Label, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()  # 1, 2, 3, … for its slice and label
    mask = models.JSONField()  # contract RunLengths; empty foreground: "the label is not here"
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="mask_revisions"
    )
    at = models.DateTimeField(default=timezone.now)
    # How it was made.
    prompts = models.JSONField()  # {"points": […], "box": … | null} as they stood when accepted
    model_digest = models.CharField(max_length=64, blank=True)  # blank: drawn by hand alone
    first_proposal = models.JSONField(null=True)  # RunLengths of the model's first mask
    hand_drawn_share = models.FloatField()  # |final xor proposal| / |final or proposal|, 0 … 1
    active_seconds = models.FloatField()
    draft_version = models.PositiveIntegerField()

    class Meta:
        ordering = ["slice__index", "label__value", "number"]
        constraints = [
            models.UniqueConstraint(
                fields=["slice", "label", "number"], name="annotation_revision_number_once"
            ),
            models.CheckConstraint(
                condition=models.Q(hand_drawn_share__gte=0, hand_drawn_share__lte=1),
                name="annotation_revision_hand_drawn_share_0_1",
            ),
        ]

    def __str__(self) -> str:
        return f"revision {self.number} of {self.slice_id}/{self.label_id}"


class Review(models.Model):
    """A reviewer's word on a submitted task."""

    class Decision(models.TextChoices):
        """What a reviewer can say."""

        ACCEPTED = "accepted"
        RETURNED = "returned"

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="reviews")
    decision = models.CharField(max_length=10, choices=Decision)
    comment = models.TextField(blank=True)
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="reviews"
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(decision="accepted") | ~models.Q(comment=""),
                name="annotation_review_return_has_comment",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.decision} by {self.reviewer_id}"
