"""Who can sign in."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """A person with an account; what they may do is their membership's role in each project.

    ``is_superuser`` may create projects for others and see the installation's state.
    """
