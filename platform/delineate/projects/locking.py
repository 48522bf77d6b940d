"""The lock on a project: the first that a transaction takes, where it takes more."""

from __future__ import annotations

from uuid import UUID

from delineate.errors import NotFound
from delineate.projects.models import Project


def lock(project_id: UUID) -> Project:
    """The project as it stands; whoever else locks it waits until the transaction ends.

    Who only refers to it does not wait (``FOR NO KEY UPDATE``): the database looks for what rows
    refer to when they are committed, the audit chain's lock in hand, and whoever holds the project
    asks for that lock last. Raises NotFound.
    """
    locked = Project.objects.select_for_update(no_key=True).filter(pk=project_id).first()
    if locked is None:
        raise NotFound("There is no such project, or you are not a member of it.")
    return locked
