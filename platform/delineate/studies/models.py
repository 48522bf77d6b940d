"""Subjects, uploads, studies, series, slices, and the encodings that make slices ready to click.

Nothing here identifies a patient: a Subject is a keyed pseudonym, UIDs are replaced, an instance's
header holds only the attributes on deidentify's allow-list, and file names are not kept.
"""

from __future__ import annotations

import uuid
from typing import Final

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from delineate.jobs import Job
from delineate.projects.models import Project

UPLOADS_PREFIX: Final = "uploads/"  # of the keys of what arrives
SERIES_ORDER: Final = ["study", "number", "series_uid", "volume"]


class Subject(models.Model):
    """A patient, as far as we know one: HMAC of the identity under the project's key.

    Where a project keeps identities, the patient's own number is in the pseudonym's place.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="subjects")
    pseudonym = models.CharField(max_length=64)

    class Meta:
        ordering = ["pseudonym"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "pseudonym"], name="studies_subject_pseudonym_once"
            ),
        ]

    def __str__(self) -> str:
        return self.pseudonym


class SubjectAlias(models.Model):
    """Another pseudonym of a subject: one that was merged into it, whose data still come in so."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="subject_aliases")
    pseudonym = models.CharField(max_length=32)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="aliases")

    class Meta:
        ordering = ["pseudonym"]
        verbose_name_plural = "subject aliases"
        constraints = [
            models.UniqueConstraint(
                fields=["project", "pseudonym"], name="studies_alias_pseudonym_once"
            ),
        ]

    def __str__(self) -> str:
        return self.pseudonym


class Erasure(Job):
    """The erasure of a subject, and then its tombstone: what is remembered so that it stays away.

    ``digests`` are keyed (deidentify.tombstone) and the only memory of who it was: of its
    pseudonyms, of its studies' UIDs and of the ids that its pixels lay under. The same lie under
    ``key`` in the object store, outside the database, whose backups do not know of them.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="erasures")
    # Null: the system, of what a restore has brought back.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="erasures"
    )
    digest = models.CharField(max_length=64)  # of the subject's pseudonym: its name here
    digests = ArrayField(models.CharField(max_length=64))
    # Keys and prefixes of objects whose rows are gone; emptied when nobody can write there.
    owed = ArrayField(models.CharField(max_length=200), default=list)
    studies_total = models.PositiveIntegerField(default=0)
    studies_done = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "digest"], name="studies_erasure_once_per_subject"
            ),
        ]

    def __str__(self) -> str:
        return f"erasure {self.id}"

    @property
    def key(self) -> str:
        """Object key of the tombstone."""
        return f"tombstones/{self.project_id}/{self.digest}"


class WayIn(models.TextChoices):
    """How an upload came."""

    BROWSER = "browser"
    COMMAND = "command"  # delineate import
    STOW = "stow"  # DICOMweb, PS3.18 10.5
    DIMSE = "dimse"  # C-STORE, PS3.4 B
    FOLDER = "folder"  # one that is watched


class Upload(Job):
    """Files as they arrived, kept until they are ingested; then only the report remains.

    It is ``arriving`` until its sender has said that this is all. A browser says in advance how
    many bytes it will send, as one blob, and sends it in parts (transfers.py).

    ``report``: a list of {"file": number in the upload, "fate": "stored" | "duplicate" |
    "skipped" | "refused", "code", "message"}. Files are numbered, because names can identify
    people.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="uploads")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="uploads"
    )
    way_in = models.CharField(max_length=10, choices=WayIn, default=WayIn.BROWSER)
    blob_count = models.PositiveIntegerField(default=0)
    size_bytes = models.PositiveBigIntegerField(default=0)
    expected_bytes = models.PositiveBigIntegerField(null=True)  # of one that comes in parts
    part_sizes = ArrayField(models.PositiveBigIntegerField(), default=list)
    files_total = models.PositiveIntegerField(default=0)
    files_done = models.PositiveIntegerField(default=0)
    report = models.JSONField(default=list)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(expected_bytes__isnull=True)
                | models.Q(size_bytes__lte=models.F("expected_bytes")),
                name="studies_upload_no_more_than_expected",
            ),
        ]

    def __str__(self) -> str:
        return f"upload {self.id}"

    def name_key(self, number: int) -> str:
        """Object key of what the sender calls that blob, where that matters: gone with it."""
        return f"uploads/{self.id}/{number}.name"

    def blob_key(self, number: int) -> str:
        """Object key of the upload's blob ``number``, 0 … blob_count - 1."""
        return f"{self.blob_prefix}{number}"

    @property
    def blob_prefix(self) -> str:
        """Everything that is kept of the upload's bytes."""
        return f"{UPLOADS_PREFIX}{self.id}/"


class Study(models.Model):
    """A study of a subject; appears whole, in one transaction, or not at all."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="studies")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="studies")
    upload = models.ForeignKey(Upload, on_delete=models.SET_NULL, null=True, related_name="studies")
    number = models.PositiveIntegerField()  # 1, 2, 3, … in its project: its name for people
    study_uid = models.CharField(max_length=64)  # ours, keyed per project
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="studies_study_number_once"),
            models.UniqueConstraint(fields=["project", "study_uid"], name="studies_study_uid_once"),
        ]

    def __str__(self) -> str:
        return f"study {self.number}"


class SealedOriginal(models.Model):
    """Who a study's patient is and what its UIDs were, for whoever holds the project's key.

    originals.Original as JSON, sealed (projects/escrow.py); one for each upload to the study.
    """

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="sealed_originals")
    sealed = models.BinaryField()

    def __str__(self) -> str:
        return f"sealed original of study {self.study_id}"


class Quarantine(models.TextChoices):
    """Whether a series may show a patient's name in its pixels, and what was done about it.

    none          held ──release──> released
                  held ──black out──> blacked_out
    """

    NONE = "none"
    HELD = "held"  # only who may release it opens it
    RELEASED = "released"
    BLACKED_OUT = "blacked_out"


class Series(models.Model):
    """Slices of one size and orientation, in order along their normal: a volume of a DICOM series.

    Most DICOM series are one; of some there are several rows (geometry.py), with one UID.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="series")
    series_uid = models.CharField(max_length=64)  # ours
    volume = models.PositiveIntegerField(default=1)  # 1, 2, … of its DICOM series
    number = models.IntegerField(default=0)  # SeriesNumber
    modality = models.CharField(max_length=16)
    rows = models.PositiveIntegerField()
    columns = models.PositiveIntegerField()
    # Distance between rows and between columns in mm (PS3.3 10.7.1.3); null when unknown.
    row_spacing_mm = models.FloatField(null=True)
    column_spacing_mm = models.FloatField(null=True)
    slice_spacing_mm = models.FloatField(null=True)
    # What is unusual about its geometry: geometry.Oddity.
    oddities = ArrayField(models.CharField(max_length=32), default=list)
    # volumes.NiftiPlace of a volume that came as a NIfTI: its masks go back with the same.
    nifti_place = models.JSONField(null=True)
    # Patient coordinates of increasing columns, then rows (ImageOrientationPatient); null: unknown.
    orientation = ArrayField(models.FloatField(), size=6, null=True)
    frame_of_reference_uid = models.CharField(max_length=64, blank=True)  # ours
    is_color = models.BooleanField(default=False)
    # What the model sees: the first VOI window, else the volume's 0.5-99.5 percentiles;
    # null for colour.
    window_centre = models.FloatField(null=True)
    window_width = models.FloatField(null=True)
    # Whether somebody has begun to delineate it: from then on it takes no more images.
    in_work = models.BooleanField(default=False)
    grew_at = models.DateTimeField(default=timezone.now)
    quarantine = models.CharField(
        max_length=12, choices=Quarantine, default=Quarantine.NONE, db_index=True
    )
    held_because = models.CharField(max_length=32, blank=True)  # burned_in.Reason
    # Who let it go, and when.
    released_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="released_series",
    )
    released_at = models.DateTimeField(null=True)

    class Meta:
        ordering = SERIES_ORDER
        verbose_name_plural = "series"
        constraints = [
            models.UniqueConstraint(
                fields=["study", "series_uid", "volume"], name="studies_series_volume_once"
            ),
            models.CheckConstraint(
                condition=models.Q(quarantine__in=Quarantine.values),
                name="studies_series_quarantine_known",
            ),
            models.CheckConstraint(
                condition=models.Q(quarantine=Quarantine.NONE, held_because="")
                | (~models.Q(quarantine=Quarantine.NONE) & ~models.Q(held_because="")),
                name="studies_series_held_for_a_reason",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    quarantine__in=[Quarantine.NONE, Quarantine.HELD],
                    released_by=None,
                    released_at=None,
                )
                | models.Q(
                    quarantine__in=[Quarantine.RELEASED, Quarantine.BLACKED_OUT],
                    released_by__isnull=False,
                    released_at__isnull=False,
                ),
                name="studies_series_released_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"series {self.number} of study {self.study_id}"


class Instance(models.Model):
    """One DICOM object: its header after de-identification, as DICOM JSON (PS3.18 F), no pixels."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="instances")
    sop_instance_uid = models.CharField(max_length=64)  # ours
    sop_class_uid = models.CharField(max_length=64)
    number_of_frames = models.PositiveIntegerField(default=1)
    header = models.JSONField()

    class Meta:
        ordering = ["series", "sop_instance_uid"]
        constraints = [
            models.UniqueConstraint(
                fields=["series", "sop_instance_uid"], name="studies_instance_uid_once"
            ),
        ]

    def __str__(self) -> str:
        return f"instance {self.sop_instance_uid}"


class Slice(models.Model):
    """One frame, decoded and checked at ingest; its stored values lie under ``pixels_key``."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="slices")
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="slices")
    index = models.PositiveIntegerField()  # 0 … n-1 along the normal
    frame_number = models.PositiveIntegerField(default=1)  # 1 … number_of_frames in its instance
    pixels_key = models.CharField(max_length=200)
    pixels_digest = models.CharField(max_length=64)
    # Of the pixels as they came, where boxes were blacked out of them since; blank: as they came.
    sent_digest = models.CharField(max_length=64, blank=True)
    slope = models.FloatField(default=1.0)
    intercept = models.FloatField(default=0.0)
    inverted = models.BooleanField(default=False)  # MONOCHROME1
    # geometry.Placed: what its place among others follows from.
    placed = models.JSONField(default=dict)

    class Meta:
        ordering = ["series", "index"]
        constraints = [
            # Deferred: in a series that grows, slices change their places with each other.
            models.UniqueConstraint(
                fields=["series", "index"],
                name="studies_slice_index_once",
                deferrable=models.Deferrable.DEFERRED,
            ),
            models.UniqueConstraint(
                fields=["instance", "frame_number"], name="studies_slice_frame_once"
            ),
        ]

    def __str__(self) -> str:
        return f"slice {self.index} of series {self.series_id}"

    @property
    def digest_as_sent(self) -> str:
        """By which the same file is known when it comes again."""
        return self.sent_digest or self.pixels_digest

    @property
    def position(self) -> list[float] | None:
        """Patient coordinates in mm of the first pixel's centre (ImagePositionPatient)."""
        position: list[float] | None = self.placed.get("position")
        return position


class Reference(models.Model):
    """A DICOM object that is kept beside a study's images and never delineated (kinds.py).

    Its header after de-identification, as DICOM JSON, and the bytes of its pixels as they were in
    the file, if it has any.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="references")
    series_uid = models.CharField(max_length=64)  # ours
    series_number = models.IntegerField(default=0)
    sop_instance_uid = models.CharField(max_length=64)  # ours
    sop_class_uid = models.CharField(max_length=64)
    modality = models.CharField(max_length=16)
    header = models.JSONField()
    pixels = models.CharField(max_length=20, blank=True)  # the attribute that they are the value of
    pixels_key = models.CharField(max_length=200, blank=True)
    transfer_syntax = models.CharField(max_length=64)  # of the pixels
    digest = models.CharField(max_length=64)  # of what it says, by which it is known again
    # Its pixels may show a name and nobody can be asked to look: for those who may release alone.
    is_held = models.BooleanField(default=False)

    class Meta:
        ordering = ["study", "series_number", "series_uid", "sop_instance_uid"]
        constraints = [
            models.UniqueConstraint(
                fields=["study", "series_uid", "sop_instance_uid"],
                name="studies_reference_uid_once",
            ),
            models.CheckConstraint(
                condition=models.Q(pixels="", pixels_key="")
                | (~models.Q(pixels="") & ~models.Q(pixels_key="")),
                name="studies_reference_pixels_lie_somewhere",
            ),
        ]

    def __str__(self) -> str:
        return f"reference {self.sop_instance_uid}"


class Encoding(Job):
    """A slice's embedding by a model: made, owed, or refused."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slice = models.ForeignKey(Slice, on_delete=models.CASCADE, related_name="encodings")
    model_digest = models.CharField(max_length=64)
    embedding_key = models.CharField(max_length=200)
    # The contract's priorities: 0 is being looked at, 3 its neighbours, 6 fresh from ingest.
    priority = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["priority", "created_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["slice", "model_digest"], name="studies_encoding_once_per_model"
            ),
        ]
        indexes = [
            models.Index(
                fields=["priority", "created_at"],
                condition=models.Q(state__in=["pending", "running"]),
                name="studies_encoding_owed",
            ),
        ]

    def __str__(self) -> str:
        return f"encoding of slice {self.slice_id}"


class BlackOut(Job):
    """Boxes that are blacked out of a held series; its pixels are written anew, then it is let go.

    ``boxes``: black_boxes.BlackBox as JSON. ``replaced_keys`` is null until the slices point at the
    new objects; then what it names is deleted before the series is opened to anybody.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="black_outs")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="black_outs"
    )
    boxes = models.JSONField()
    grew_at = models.DateTimeField()  # the series, as it was when the boxes were drawn
    slices_total = models.PositiveIntegerField(default=0)
    slices_done = models.PositiveIntegerField(default=0)
    replaced_keys = models.JSONField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["series"],
                condition=models.Q(state__in=["pending", "running"]),
                name="studies_black_out_one_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"black-out of series {self.series_id}"
