"""The models that can serve prompts: global and immutable, identified by their digest."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from delineate.jobs import Job
from delineate.projects.models import Project
from mlworker.contract.artifacts import upload_key


class ModelVersion(models.Model):
    """A checkpoint in the object store under the contract's ``checkpoint_key(digest)``."""

    digest = models.CharField(primary_key=True, max_length=64)
    name = models.CharField(max_length=120)
    variant = models.CharField(max_length=20)
    image_size = models.PositiveSmallIntegerField()
    adapters = models.BooleanField()
    # False: random weights from a seed; pages say so wherever its masks are offered.
    trained = models.BooleanField()
    # What the checkpoint says of itself: how its slices are prepared, where its weights come from,
    # the file it was made from, and how well it did.
    preparation = models.PositiveSmallIntegerField(default=1)
    origin = models.TextField(blank=True)
    parent = models.CharField(max_length=64, blank=True)
    metrics = models.JSONField(default=dict)
    is_default = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"],
                condition=models.Q(is_default=True),
                name="registry_one_default_model",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.digest[:8]})"


class Deployment(models.Model):
    """When a model answered in a project; where none is open, the default model answers."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="deployments")
    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="deployments")
    since = models.DateTimeField(default=timezone.now)
    until = models.DateTimeField(null=True)
    # None: the system, by the project's own rule.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="deployments"
    )

    class Meta:
        ordering = ["-since"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(until=None),
                name="registry_one_open_deployment",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_id[:8]} in {self.project_id}"


class ModelUpload(Job):
    """A file that an administrator wants as a model; the worker reads it, and then it is gone."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # None: whoever administers the machine.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="model_uploads"
    )
    name = models.CharField(max_length=120)
    size_bytes = models.PositiveBigIntegerField()
    # The contract's AdapterChoice; empty: whatever suits the file.
    adapters = models.CharField(max_length=10, blank=True)
    # What it became, once it is done.
    model = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, related_name="uploads"
    )

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"upload of {self.name}"

    @property
    def file_key(self) -> str:
        """Object key of the file, as long as the job goes on."""
        return upload_key(str(self.id))

    @property
    def was_known(self) -> bool:
        """Whether the file became a model that was there before it."""
        return self.model is not None and self.model.created_at < self.created_at
