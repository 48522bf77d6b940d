"""The models that can serve prompts: global and immutable, identified by their digest."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class ModelVersion(models.Model):
    """A checkpoint in the object store under the contract's ``checkpoint_key(digest)``."""

    digest = models.CharField(primary_key=True, max_length=64)
    name = models.CharField(max_length=120)
    variant = models.CharField(max_length=20)
    image_size = models.PositiveSmallIntegerField()
    adapters = models.BooleanField()
    # False: random weights from a seed; pages say so wherever its masks are offered.
    trained = models.BooleanField()
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
