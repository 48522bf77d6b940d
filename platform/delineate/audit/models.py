"""The audit trail: append-only, hash-chained per project."""

from __future__ import annotations

from django.db import models


class Event(models.Model):
    """One act. Who and what are text: the trail outlives the rows it speaks of."""

    # Null: the act concerns the installation (an account, a model), not a project.
    project_id = models.UUIDField(null=True)
    number = models.PositiveBigIntegerField()  # 1, 2, 3, … in its chain
    at = models.DateTimeField()
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    subject = models.CharField(max_length=200)  # what it was done to: "study 4f…", "user anna"
    data = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["project_id", "number"]
        constraints = [
            models.UniqueConstraint(
                fields=["project_id", "number"],
                name="audit_event_number_in_chain",
                nulls_distinct=False,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number}: {self.actor} {self.action} {self.subject}"
