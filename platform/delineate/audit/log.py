"""One function per auditable act, called in the transaction of the act. The list is closed.

Who and what are recorded as text and plain values, because the trail outlives the rows it speaks
of: names of people are user names, never those of patients. ``by=None`` is the system.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID

from delineate.audit import chain

SYSTEM = "system"


class Actor(Protocol):
    """Whoever does something: an account, in person or by a token."""

    def get_username(self) -> str:
        """The name to sign in with."""

    @property
    def token_id(self) -> UUID | None:
        """The API token it acts by; None: in person."""


def signed_in(user: Actor) -> None:
    """Somebody has signed in."""
    _record(None, "signed_in", by=user, subject=_user(user.get_username()))


def signed_out(user: Actor) -> None:
    """Somebody has signed out."""
    _record(None, "signed_out", by=user, subject=_user(user.get_username()))


def sign_in_failed(username: str | None, *, address: str) -> None:
    """A sign-in was refused; ``username`` only when there is such an account.

    What else stood in the field may be a password.
    """
    subject = "an unknown user" if username is None else _user(username)
    _record(None, "sign_in_failed", by=None, subject=subject, address=address)


def user_created(username: str, *, by: Actor | None, is_superuser: bool) -> None:
    """An account was made."""
    _record(None, "user_created", by=by, subject=_user(username), is_superuser=is_superuser)


def password_changed(username: str, *, by: Actor | None) -> None:
    """An account has another password."""
    _record(None, "password_changed", by=by, subject=_user(username))


def token_made(
    token_id: UUID,
    username: str,
    *,
    by: Actor | None,
    name: str,
    project_id: UUID | None,
    read_only: bool,
    expires_at: datetime | None,
) -> None:
    """A program can act as an account from now on."""
    _record(
        None,
        "token_made",
        by=by,
        subject=_token(token_id),
        user=username,
        name=name,
        project=None if project_id is None else str(project_id),
        read_only=read_only,
        expires_at=None if expires_at is None else expires_at.isoformat(),
    )


def token_revoked(token_id: UUID, username: str, *, by: Actor | None, name: str) -> None:
    """A token opens nothing any more."""
    _record(None, "token_revoked", by=by, subject=_token(token_id), user=username, name=name)


def token_first_used(token_id: UUID, *, by: Actor, address: str) -> None:
    """A token was used for the first time; later uses are in what was done by it."""
    _record(None, "token_first_used", by=by, subject=_token(token_id), address=address)


def token_refused(token_id: UUID | None, *, address: str) -> None:
    """A wrong, expired or revoked token came; its id only when there is such a token."""
    subject = "an unknown token" if token_id is None else _token(token_id)
    _record(None, "token_refused", by=None, subject=subject, address=address)


def model_uploaded(upload_id: UUID, *, by: Actor | None, name: str, bytes: int) -> None:
    """A file has arrived that is to become a model."""
    _record(
        None, "model_uploaded", by=by, subject=f"model upload {upload_id}", name=name, bytes=bytes
    )


def model_refused(upload_id: UUID, *, by: Actor | None, name: str, code: str) -> None:
    """The file did not become one."""
    _record(None, "model_refused", by=by, subject=f"model upload {upload_id}", name=name, code=code)


def model_added(
    digest: str, *, by: Actor | None, name: str, variant: str, trained: bool, origin: str
) -> None:
    """A model can be used from now on."""
    _record(
        None,
        "model_added",
        by=by,
        subject=f"model {digest}",
        name=name,
        variant=variant,
        trained=trained,
        origin=origin,
    )


def model_made_default(digest: str, *, by: Actor | None, previous: str | None) -> None:
    """Another model answers prompts from now on."""
    _record(None, "model_made_default", by=by, subject=f"model {digest}", previous=previous)


def model_answers(
    project_id: UUID, digest: str, *, by: Actor | None, change: str, previous: str | None
) -> None:
    """Another model answers prompts in a project from now on; ``by`` None: the project's rule."""
    _record(
        project_id,
        "model_answers",
        by=by,
        subject=f"model {digest}",
        change=change,
        previous=previous,
    )


def learning_changed(project_id: UUID, *, by: Actor, before: str, after: str) -> None:
    """A project learns in another way."""
    subject = f"project {project_id}"
    _record(project_id, "learning_changed", by=by, subject=subject, before=before, after=after)


def parts_given(project_id: UUID, *, by: Actor | None, part: str, pseudonyms: list[str]) -> None:
    """Subjects are learnt from, or held out, for ever."""
    _record(
        project_id,
        "parts_given",
        by=by,
        subject=f"project {project_id}",
        part=part,
        subjects=pseudonyms,
    )


def run_started(project_id: UUID, run_id: UUID, *, by: Actor | None, **data: chain.Value) -> None:
    """A model begins to learn; ``by`` None: the schedule."""
    _record(project_id, "run_started", by=by, subject=f"run {run_id}", **data)


def run_cancelled(project_id: UUID, run_id: UUID, *, by: Actor) -> None:
    """Somebody stopped a run."""
    _record(project_id, "run_cancelled", by=by, subject=f"run {run_id}")


def run_judged(project_id: UUID, run_id: UUID, *, verdict: str, candidate: str) -> None:
    """The gate has spoken."""
    _record(
        project_id,
        "run_judged",
        by=None,
        subject=f"run {run_id}",
        verdict=verdict,
        candidate=candidate,
    )


def run_failed(project_id: UUID, run_id: UUID, *, code: str) -> None:
    """A run has ended without a model that was judged."""
    _record(project_id, "run_failed", by=None, subject=f"run {run_id}", code=code)


def drift_noticed(project_id: UUID, *, by: str, name: str, sentence: str) -> None:
    """First proposals have got worse for a label or on a scanner."""
    _record(project_id, "drift_noticed", by=None, subject=f"{by} {name}", sentence=sentence)


def model_downloaded(project_id: UUID, digest: str, *, by: Actor) -> None:
    """A checkpoint left the installation."""
    _record(project_id, "model_downloaded", by=by, subject=f"model {digest}")


def project_created(project_id: UUID, *, by: Actor | None, name: str) -> None:
    """A project was made."""
    _record(project_id, "project_created", by=by, subject=f"project {project_id}", name=name)


def project_renamed(project_id: UUID, *, by: Actor | None, before: str, after: str) -> None:
    """A project has another name."""
    subject = f"project {project_id}"
    _record(project_id, "project_renamed", by=by, subject=subject, before=before, after=after)


def privacy_changed(
    project_id: UUID, *, by: Actor | None, before: list[str], after: list[str]
) -> None:
    """From now on, something else is kept of who a project's patients are."""
    subject = f"project {project_id}"
    _record(project_id, "privacy_changed", by=by, subject=subject, before=before, after=after)


def escrow_begun(project_id: UUID, *, by: Actor | None, public_key: str) -> None:
    """From now on, identities are sealed; whoever holds the file can have them back."""
    subject = f"project {project_id}"
    _record(project_id, "escrow_begun", by=by, subject=subject, public_key=public_key)


def label_added(
    project_id: UUID, label_id: UUID, *, by: Actor | None, name: str, color: str, value: int
) -> None:
    """A label can be delineated from now on."""
    subject = f"label {label_id}"
    _record(project_id, "label_added", by=by, subject=subject, name=name, color=color, value=value)


def label_changed(
    project_id: UUID, label_id: UUID, *, by: Actor | None, name: str, color: str, before: str
) -> None:
    """A label has another name or colour."""
    subject = f"label {label_id}"
    _record(
        project_id, "label_changed", by=by, subject=subject, name=name, color=color, before=before
    )


def label_removed(
    project_id: UUID, label_id: UUID, *, by: Actor | None, name: str, value: int
) -> None:
    """A label without masks was removed."""
    _record(project_id, "label_removed", by=by, subject=f"label {label_id}", name=name, value=value)


def member_added(project_id: UUID, username: str, *, by: Actor | None, role: str) -> None:
    """Somebody works in a project from now on."""
    _record(project_id, "member_added", by=by, subject=_user(username), role=role)


def member_changed(
    project_id: UUID, username: str, *, by: Actor | None, before: str, role: str
) -> None:
    """A member has another role."""
    subject = _user(username)
    _record(project_id, "member_changed", by=by, subject=subject, before=before, role=role)


def member_removed(project_id: UUID, username: str, *, by: Actor | None, role: str) -> None:
    """Somebody no longer works in a project."""
    _record(project_id, "member_removed", by=by, subject=_user(username), role=role)


def upload_received(
    upload_id: UUID, project_id: UUID, *, by: Actor | None, way_in: str, files: int, bytes: int
) -> None:
    """Files have arrived."""
    _record(
        project_id,
        "upload_received",
        by=by,
        subject=f"upload {upload_id}",
        way_in=way_in,
        files=files,
        bytes=bytes,
    )


def upload_discarded(
    upload_id: UUID, project_id: UUID, *, by: Actor | None, bytes: int, reason: str
) -> None:
    """An upload did not become complete, and what had come of it is gone."""
    _record(
        project_id,
        "upload_discarded",
        by=by,
        subject=f"upload {upload_id}",
        bytes=bytes,
        reason=reason,
    )


def study_ingested(
    project_id: UUID,
    study_id: UUID,
    upload_id: UUID,
    *,
    series: int,
    slices: int,
    references: int = 0,
) -> None:
    """A study was stored whole."""
    kept = {"references": references} if references else {}
    _record(
        project_id,
        "study_ingested",
        by=None,
        subject=f"study {study_id}",
        upload=str(upload_id),
        series=series,
        slices=slices,
        **kept,
    )


def study_deleted(project_id: UUID, study_id: UUID, *, by: Actor | None, **counts: int) -> None:
    """A study was deleted, with everything that was made of it; ``counts`` of what."""
    _record(project_id, "study_deleted", by=by, subject=f"study {study_id}", **counts)


def subjects_merged(
    project_id: UUID, digest: str, *, by: Actor | None, merged: list[str], studies: list[str]
) -> None:
    """Subjects became one; ``studies`` by their numbers.

    Of subjects only keyed digests are recorded: the trail outlives their erasure.
    """
    subject = f"subject {digest}"
    _record(project_id, "subjects_merged", by=by, subject=subject, merged=merged, studies=studies)


def subject_erasure_requested(project_id: UUID, digest: str, *, by: Actor | None) -> None:
    """A subject is to be erased; nothing of it is taken in any more."""
    _record(project_id, "subject_erasure_requested", by=by, subject=f"subject {digest}")


def subject_erased(project_id: UUID, digest: str, *, by: Actor | None, studies: int) -> None:
    """Nothing is left of a subject; by the system, where a restore had brought it back."""
    _record(project_id, "subject_erased", by=by, subject=f"subject {digest}", studies=studies)


def series_released(project_id: UUID, series_id: UUID, *, by: Actor | None, reason: str) -> None:
    """Somebody has looked at a held series and let everybody open it."""
    _record(project_id, "series_released", by=by, subject=f"series {series_id}", reason=reason)


def series_blacked_out(
    project_id: UUID,
    series_id: UUID,
    *,
    by: Actor | None,
    reason: str,
    boxes: list[str],
    slices: int,
) -> None:
    """Boxes of a held series' pixels are black for good, and everybody may open it."""
    _record(
        project_id,
        "series_blacked_out",
        by=by,
        subject=f"series {series_id}",
        reason=reason,
        boxes=boxes,
        slices=slices,
    )


def mask_accepted(
    project_id: UUID, revision_id: UUID, *, by: Actor | None, **data: chain.Value
) -> None:
    """A mask was frozen into a revision."""
    _record(project_id, "mask_accepted", by=by, subject=f"revision {revision_id}", **data)


def task_submitted(project_id: UUID, task_id: UUID, *, by: Actor | None) -> None:
    """A task awaits its review."""
    _record(project_id, "task_submitted", by=by, subject=f"task {task_id}")


def task_accepted(project_id: UUID, task_id: UUID, *, by: Actor | None, comment: str = "") -> None:
    """A reviewer has accepted a task."""
    _record(project_id, "task_accepted", by=by, subject=f"task {task_id}", comment=comment)


def task_returned(project_id: UUID, task_id: UUID, *, by: Actor | None, comment: str) -> None:
    """A reviewer has returned a task."""
    _record(project_id, "task_returned", by=by, subject=f"task {task_id}", comment=comment)


def task_reopened(project_id: UUID, task_id: UUID, *, by: Actor | None) -> None:
    """An accepted task may be changed again."""
    _record(project_id, "task_reopened", by=by, subject=f"task {task_id}")


def export_requested(
    project_id: UUID, export_id: UUID, *, by: Actor | None, format: str, reviewed_only: bool
) -> None:
    """Somebody wants the project's masks."""
    _record(
        project_id,
        "export_requested",
        by=by,
        subject=f"export {export_id}",
        format=format,
        reviewed_only=reviewed_only,
    )


def export_finished(
    project_id: UUID, export_id: UUID, *, by: Actor | None = None, **data: chain.Value
) -> None:
    """An export was written and read back."""
    _record(project_id, "export_finished", by=by, subject=f"export {export_id}", **data)


def export_downloaded(
    project_id: UUID, export_id: UUID, *, by: Actor | None, **data: chain.Value
) -> None:
    """An export's file left the installation."""
    _record(project_id, "export_downloaded", by=by, subject=f"export {export_id}", **data)


def export_reidentified(
    project_id: UUID, export_id: UUID, *, by: Actor | None, **data: chain.Value
) -> None:
    """An export left the installation with its patients' identities."""
    _record(project_id, "export_reidentified", by=by, subject=f"export {export_id}", **data)


def _record(
    project_id: UUID | None, action: str, *, by: Actor | None, subject: str, **data: chain.Value
) -> None:
    actor = SYSTEM if by is None else by.get_username()
    if by is not None and by.token_id is not None:
        data["by_token"] = str(by.token_id)
    chain.append(project_id, actor=actor, action=action, subject=subject, data=data)


def _user(username: str) -> str:
    return f"user {username}"


def _token(token_id: UUID) -> str:
    return f"token {token_id}"
