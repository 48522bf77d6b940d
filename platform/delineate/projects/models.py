"""Projects, who works in them, and what is delineated."""

from __future__ import annotations

import secrets
import uuid
from enum import StrEnum

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from delineate.projects.privacy import Dates, Identities, Policy


def new_pseudonym_key() -> bytes:
    """A project's own secret: equal patients get equal pseudonyms only within it."""
    return secrets.token_bytes(32)


def _choices(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [(str(word), str(word)) for word in words]


class Role(models.TextChoices):
    """What a member is in a project; permissions.py says what that allows."""

    LEAD = "lead"
    REVIEWER = "reviewer"
    ANNOTATOR = "annotator"


class Project(models.Model):
    """The unit of isolation: data, people and masks of one project are invisible to others."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(default=timezone.now)
    pseudonym_key = models.BinaryField(max_length=32, default=new_pseudonym_key)
    # The highest value a label was ever given: those of removed labels are not given again.
    last_label_value = models.PositiveSmallIntegerField(default=0)
    # privacy.Policy, a column for each choice.
    identities = models.CharField(
        max_length=10, choices=_choices(Identities), default=Identities.REMOVED
    )
    dates = models.CharField(max_length=10, choices=_choices(Dates), default=Dates.SHIFTED)
    patient_characteristics = models.BooleanField(default=False)
    device = models.BooleanField(default=False)
    safe_private = models.BooleanField(default=True)
    # What identities are sealed with (escrow.py); null: they are nowhere.
    escrow_public_key = models.BinaryField(max_length=32, null=True)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(identities__in=list(Identities)),
                name="projects_project_identities_known",
            ),
            models.CheckConstraint(
                condition=models.Q(dates__in=list(Dates)), name="projects_project_dates_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def has_escrow(self) -> bool:
        """Whether identities are sealed for somebody who has the key."""
        return self.escrow_public_key is not None

    @property
    def privacy(self) -> Policy:
        """What is kept of who its patients are."""
        return Policy(**{name: getattr(self, name) for name in Policy.model_fields})


class Membership(models.Model):
    """A person's role in a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role)

    class Meta:
        ordering = ["user__username"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "user"], name="projects_membership_once_per_user"
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=Role.values), name="projects_membership_role_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} is {self.role} in {self.project_id}"


class Label(models.Model):
    """A structure to delineate. ``value`` is its number in exported label maps, never reused."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="labels")
    name = models.CharField(max_length=64)  # SegmentLabel is LO: 64 characters
    color = models.CharField(max_length=7, validators=[RegexValidator(r"^#[0-9a-f]{6}$")])
    value = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["value"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="projects_label_name_once"),
            models.UniqueConstraint(fields=["project", "value"], name="projects_label_value_once"),
            models.CheckConstraint(
                condition=models.Q(value__gte=1, value__lte=255), name="projects_label_value_1_255"
            ),
        ]

    def __str__(self) -> str:
        return self.name
