"""Who can sign in, and the programs that act in their name."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class User(AbstractUser):
    """A person with an account; what they may do is their membership's role in each project.

    ``is_superuser`` administers the installation: its state and its models; it opens no project.
    """

    full_name = models.CharField(max_length=150, blank=True)

    # The API token by which a request acts as this person; None: in person. Not a column: the
    # same account comes either way.
    token: ApiToken | None = None

    @property
    def token_id(self) -> uuid.UUID | None:
        """By which token this person acts, for the audit trail."""
        return None if self.token is None else self.token.id

    @property
    def only_project_id(self) -> uuid.UUID | None:
        """The one project that may be reached; None: all of the person's."""
        return None if self.token is None else self.token.project_id

    @property
    def display_name(self) -> str:
        """What others read beside this person's work."""
        return self.full_name or self.username


class ApiToken(models.Model):
    """A secret by which a program acts as a person; only the secret's digest is kept.

    It may reach less than its person: one project, or nothing that changes anything. A revoked one
    stays, so that what comes with it can still be told whose it was.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)  # where it is used, in its owner's words
    digest = models.CharField(max_length=64)  # SHA-256, hex, of the whole secret
    # No foreign key: projects are above accounts. One that is gone leaves nothing to reach.
    project_id = models.UUIDField(null=True)
    read_only = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)  # to the minute

    class Meta:
        ordering = ["-created_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["digest"], name="accounts_api_token_digest_once"),
            models.CheckConstraint(
                condition=models.Q(expires_at=None)
                | models.Q(expires_at__gt=models.F("created_at")),
                name="accounts_api_token_expires_after_made",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"


class FailedSignIn(models.Model):
    """A wrong password or token, remembered for a few minutes by what was tried from where."""

    key = models.CharField(max_length=64)  # digest of what was tried from where
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["key", "at"], name="accounts_failed_sign_in_recent")]

    def __str__(self) -> str:
        return f"failed sign-in {self.key[:8]}"
