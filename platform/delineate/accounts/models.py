"""Who can sign in."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class User(AbstractUser):
    """A person with an account; what they may do is their membership's role in each project.

    ``is_superuser`` administers the installation: its state and its models; it opens no project.
    """

    full_name = models.CharField(max_length=150, blank=True)

    @property
    def display_name(self) -> str:
        """What others read beside this person's work."""
        return self.full_name or self.username


class FailedSignIn(models.Model):
    """A wrong password, remembered for a few minutes by what was tried from where."""

    key = models.CharField(max_length=64)  # digest of user name and address
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["key", "at"], name="accounts_failed_sign_in_recent")]

    def __str__(self) -> str:
        return f"failed sign-in {self.key[:8]}"
