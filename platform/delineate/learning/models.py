"""What a project learns: settings, who is held out, runs, judgements, promotions, rankings."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from delineate.annotation.models import MaskRevision
from delineate.jobs import Job
from delineate.projects.models import Project
from delineate.registry.models import ModelVersion
from delineate.studies.models import Slice
from mlworker.contract.artifacts import evaluation_key, learning_set_key


class Schedule(models.TextChoices):
    """When a project's model learns by itself."""

    OFF = "off"  # by hand only
    NIGHTLY = "nightly"
    MASKS = "masks"  # after so many newly accepted masks


class Trainable(models.TextChoices):
    """The contract's Trainable."""

    DECODER = "decoder"
    ADAPTERS = "adapters"
    EVERYTHING = "everything"


class Parent(models.TextChoices):
    """What a run begins with."""

    ACTIVE = "active"  # the model that answers in the project
    DEFAULT = "default"  # the installation's


class Part(models.TextChoices):
    """The contract's Part."""

    TRAIN = "train"
    HELD_OUT = "held_out"


class LearningSettings(models.Model):
    """How a project wants to learn."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="learning")
    schedule = models.CharField(max_length=10, choices=Schedule, default=Schedule.OFF)
    every_masks = models.PositiveIntegerField(default=100)
    # Hours of the day, UTC: a run begins between them; equal: at any time.
    window_from = models.PositiveSmallIntegerField(default=22)
    window_until = models.PositiveSmallIntegerField(default=6)
    budget_minutes = models.PositiveIntegerField(default=120)
    trainable = models.CharField(max_length=10, choices=Trainable, default=Trainable.EVERYTHING)
    parent = models.CharField(max_length=10, choices=Parent, default=Parent.ACTIVE)
    epochs = models.PositiveSmallIntegerField(default=40)
    learning_rate = models.FloatField(default=1e-4)
    # The gate.
    automatic = models.BooleanField(default=False)
    confidence = models.FloatField(default=0.95)
    tolerance = models.FloatField(default=0.02)  # Dice that a label may lose at the most
    # Of the subjects that are new to the ledger.
    held_out_share = models.FloatField(default=0.25)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(confidence__gte=0.5, confidence__lt=1),
                name="learning_settings_confidence",
            ),
            models.CheckConstraint(
                condition=models.Q(held_out_share__gt=0, held_out_share__lt=1),
                name="learning_settings_held_out_share",
            ),
        ]

    def __str__(self) -> str:
        return f"learning of {self.project_id}: {self.schedule}"

    @classmethod
    def of(cls, project: Project) -> LearningSettings:
        """How a project wants to learn; the defaults until somebody has said."""
        return cls.objects.filter(project=project).first() or cls(project=project)


class SubjectPart(models.Model):
    """The ledger: which part a subject is in, for ever. Append-only, but for held-out by a merge.

    By pseudonym and not by subject's row: merged and erased subjects keep their part, so that no
    one who comes back learns what judges it.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="subject_parts")
    pseudonym = models.CharField(max_length=64)
    part = models.CharField(max_length=10, choices=Part)
    assigned_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["pseudonym"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "pseudonym"], name="learning_subject_part_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pseudonym}: {self.part}"


class Snapshot(models.Model):
    """Accepted masks as they were: which revisions, of which pixels, in which part."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="snapshots")
    created_at = models.DateTimeField(default=timezone.now)
    digest = models.CharField(max_length=64)  # SHA-256 of the learning set's bytes
    # Pairs of slices, learnt from and held out, that are nearly equal as far as embeddings tell.
    near_duplicates = models.JSONField(default=list)
    # Held-out subjects that the parent has learnt from, before a merge: they judge nothing.
    left_out = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"snapshot {self.digest[:8]} of {self.project_id}"

    @property
    def key(self) -> str:
        """Object key of the learning set."""
        return learning_set_key(str(self.id))


class SnapshotItem(models.Model):
    """A mask of a snapshot. Digests only: the mask itself goes with its subject."""

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="items")
    revision_id = models.UUIDField(db_index=True)
    slice_id = models.UUIDField()
    pseudonym = models.CharField(max_length=64)
    part = models.CharField(max_length=10, choices=Part)
    label = models.CharField(max_length=120)
    pixels_digest = models.CharField(max_length=64)
    mask_digest = models.CharField(max_length=64)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.label} of {self.slice_id} ({self.part})"


class Verdict(models.TextChoices):
    """What the gate says."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    INSUFFICIENT = "insufficient"  # too few held-out subjects or masks to say
    LEAKED = "leaked"  # the candidate has learnt from somebody who judges it


class Stage(models.TextChoices):
    """What a run is at."""

    TRAINING = "training"
    EVALUATING = "evaluating"


class TrainingRun(Job):
    """A fine-tuning with its judgement."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField()  # 1, 2, 3, … in its project
    # Frozen when the run's turn comes.
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, null=True, related_name="runs")
    parent = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    # None: the schedule.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="training_runs"
    )
    recipe = models.JSONField()  # the contract's Recipe
    budget_s = models.FloatField(null=True)
    stage = models.CharField(max_length=10, choices=Stage, default=Stage.TRAINING)
    stop_wanted = models.BooleanField(default=False)
    # The last attempt that came further: those after it count towards giving up.
    furthest_attempt = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField(null=True)
    # How far it has come.
    epoch = models.PositiveIntegerField(default=0)
    step = models.PositiveIntegerField(default=0)
    of_steps = models.PositiveIntegerField(default=0)
    eta_s = models.FloatField(null=True)
    seconds = models.FloatField(default=0)
    curve = models.JSONField(default=list)  # [step, loss, dice], thinned
    log = models.JSONField(default=list)  # [when, sentence]
    evaluated = models.PositiveIntegerField(default=0)
    to_evaluate = models.PositiveIntegerField(default=0)
    # What came of it.
    candidate = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, related_name="runs"
    )
    opponent = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, related_name="+"
    )
    verdict = models.CharField(max_length=12, choices=Verdict, blank=True)
    judgement = models.JSONField(default=dict)  # gate.Judgement

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="learning_run_number_once"),
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(state__in=["pending", "running"]),
                name="learning_one_run_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.number} of {self.project_id} ({self.state})"

    @property
    def results_key(self) -> str:
        """Object key of what the gate judged by."""
        return evaluation_key(str(self.id))


class Comparison(Job):
    """Two models on the held-out masks of a snapshot, slice by slice, because somebody asked."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="comparisons")
    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="comparisons")
    first = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    second = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="comparisons"
    )
    done = models.PositiveIntegerField(default=0)
    of = models.PositiveIntegerField(default=0)
    judgement = models.JSONField(default=dict)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"comparison {self.id}"

    @property
    def results_key(self) -> str:
        """Object key of the rows."""
        return evaluation_key(str(self.id))


class Change(models.TextChoices):
    """Why a project's model changes."""

    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    PIN = "pin"  # a lead's choice of any model


class PromotionState(models.TextChoices):
    """Where it stands."""

    PREPARING = "preparing"
    DONE = "done"
    REPLACED = "replaced"  # by a later one, before it was done


class Promotion(models.Model):
    """A model on its way to answering in a project: open tasks get their embeddings first."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="promotions")
    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    run = models.ForeignKey(
        TrainingRun, on_delete=models.SET_NULL, null=True, related_name="promotions"
    )
    change = models.CharField(max_length=10, choices=Change)
    # None: the gate, where the project lets it.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="promotions"
    )
    state = models.CharField(
        max_length=10, choices=PromotionState, default=PromotionState.PREPARING
    )
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    prepared = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(state="preparing"),
                name="learning_one_promotion_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.change} {self.model_id[:8]} in {self.project_id} ({self.state})"


class Agreement(models.Model):
    """How near the model's first proposal came to what was accepted; worked out after the act."""

    revision = models.OneToOneField(
        MaskRevision, on_delete=models.CASCADE, related_name="agreement"
    )
    dice = models.FloatField(null=True)  # None: drawn by hand alone
    clicks = models.PositiveIntegerField()  # points, and the box
    scanner = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return f"{self.dice} after {self.clicks}"


class DriftNotice(models.Model):
    """First proposals of a label, or on a scanner, fell in a week: leads are told once."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="drift_notices")
    by = models.CharField(max_length=10)  # label, or scanner
    name = models.CharField(max_length=200)
    week = models.DateField()
    sentence = models.TextField()

    class Meta:
        ordering = ["-week", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "by", "name", "week"], name="learning_drift_notice_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


class Strategy(models.TextChoices):
    """The contract's Strategy."""

    RANDOM = "random"
    UNCERTAINTY = "uncertainty"
    DIVERSITY = "diversity"
    RARE_LABELS = "rare_labels"
    MIX = "mix"


class Ranking(Job):
    """An order in which slices are worth annotating, as it was when somebody asked."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rankings")
    strategy = models.CharField(max_length=12, choices=Strategy)
    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rankings")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="rankings"
    )
    seed = models.PositiveIntegerField()  # of which slices are looked at, where there are many
    # Slices that are with the worker, that it found unprepared once, and that cannot be scored.
    asked = ArrayField(models.UUIDField(), default=list)
    unprepared = ArrayField(models.UUIDField(), default=list)
    refused = ArrayField(models.UUIDField(), default=list)
    scored = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"],
                condition=models.Q(state__in=["pending", "running"]),
                name="learning_one_ranking_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"ranking by {self.strategy} of {self.project_id} ({self.state})"


class SliceScore(models.Model):
    """What a model thinks of a slice: the contract's SliceScore, kept for every later ranking."""

    slice = models.ForeignKey(Slice, on_delete=models.CASCADE, related_name="scores")
    model_digest = models.CharField(max_length=64)
    predicted_iou = models.FloatField()
    disagreement = models.FloatField()
    instability = models.FloatField()
    features = models.BinaryField()  # 256 float16, little endian

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["slice", "model_digest"], name="learning_score_once_per_model"
            ),
        ]

    def __str__(self) -> str:
        return f"score of slice {self.slice_id}"


class RankedSlice(models.Model):
    """A slice's place in a ranking, and why it has it."""

    ranking = models.ForeignKey(Ranking, on_delete=models.CASCADE, related_name="slices")
    position = models.PositiveIntegerField()  # 1, 2, …; a slice that is deleted leaves a gap
    slice = models.ForeignKey(Slice, on_delete=models.CASCADE, related_name="rankings")
    score = models.FloatField()
    reason = models.TextField()

    class Meta:
        ordering = ["ranking", "position"]
        constraints = [
            models.UniqueConstraint(
                fields=["ranking", "position"], name="learning_ranked_position_once"
            ),
            models.UniqueConstraint(fields=["ranking", "slice"], name="learning_ranked_slice_once"),
        ]

    def __str__(self) -> str:
        return f"{self.position}. {self.slice_id}"
