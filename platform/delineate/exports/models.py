"""Exports of a project's accepted masks."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from delineate.jobs import Job
from delineate.projects.models import Project


class Format(models.TextChoices):
    """What can be written."""

    NIFTI = "nifti"  # one file per series and label
    NIFTI_LABEL_MAP = "nifti_label_map"  # one file per series; refused when labels overlap
    PNG = "png"  # one mask per slice and label
    DICOM_SEG = "dicom_seg"


class Export(Job):
    """A zip of masks in one format, written and read back before anybody may fetch it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="exports")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="exports"
    )
    format = models.CharField(max_length=20, choices=Format)
    # True: only tasks a reviewer has accepted; False: every accepted mask of any task.
    reviewed_only = models.BooleanField(default=True)
    series_total = models.PositiveIntegerField(default=0)
    series_done = models.PositiveIntegerField(default=0)
    size_bytes = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)  # SHA-256 of the zip
    # What is in the zip: deleting one of these withdraws it.
    study_ids = ArrayField(models.UUIDField(), default=list)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.format} export of {self.project_id}"

    @property
    def file_key(self) -> str:
        """Object key of the zip; each attempt has its own, so that a late one harms nothing."""
        return f"{self.file_prefix}{self.attempt}.zip"

    @property
    def file_prefix(self) -> str:
        """Everything that is kept of the export's bytes."""
        return f"exports/{self.project_id}/{self.id}/"

    @property
    def file_name(self) -> str:
        """What the zip is called when it is fetched."""
        return f"{self.id}-{self.format}.zip"
