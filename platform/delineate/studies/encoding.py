"""Encodings: which slices are owed an embedding, in which order, and what has come back.

The broker's queue is kept short, so that what is opened now never waits behind a long ingest: at
most ``IN_FLIGHT`` slices are with the worker at ordinary priority, and each batch that comes back
sends the next. What somebody is looking at is sent at once, past that limit.

An attempt is one sending that a living worker has not answered. While the worker is away nothing is
sent again and nothing counts: its queue keeps, and a night without a worker fails no slice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from delineate import jobs, live, worker
from delineate.jobs import MAX_ATTEMPTS, SILENT_AFTER, JobState
from delineate.projects.models import Project
from delineate.registry.selectors import active_digest, active_digests
from delineate.studies.models import Encoding, Series, Slice
from delineate.studies.selectors import counted, image_of, not_held, unused_embeddings
from mlworker.contract import broker
from mlworker.contract.artifacts import embedding_key
from mlworker.contract.messages import MAX_BATCH, EncodeItem, EncodeSlices, SlicesEncoded

IN_FLIGHT: Final = 4 * MAX_BATCH
MISSING_AT_ONCE: Final = 512


def request(
    slice_ids: Sequence[UUID], *, model_digest: str, priority: int, anew: bool = False
) -> None:
    """See to it that these slices get embeddings, at least this early.

    A slice whose encoding failed is tried again, unless it has failed too often. ``anew``: also
    what counts as done, because the worker did not find it. Slices in quarantine get theirs when
    they are released.
    """
    with transaction.atomic():
        slices = Slice.objects.filter(not_held("series__"), id__in=slice_ids)
        slices = slices.select_related("series")
        Encoding.objects.bulk_create(
            [
                Encoding(
                    slice=slice_,
                    model_digest=model_digest,
                    embedding_key=embedding_key(image_of(slice_), model_digest=model_digest),
                    priority=priority,
                )
                for slice_ in slices
            ],
            ignore_conflicts=True,
        )
        wanted = Encoding.objects.filter(
            not_held("slice__series__"), slice_id__in=slice_ids, model_digest=model_digest
        )
        wanted.filter(state=JobState.FAILED, attempt__lt=MAX_ATTEMPTS).update(
            state=JobState.PENDING, error_code="", error_message=""
        )
        if anew:
            wanted.filter(state=JobState.DONE).update(state=JobState.PENDING, attempt=0)
        wanted.filter(priority__gt=priority).update(priority=priority)
    if priority == broker.PRIORITY_NOW:
        # Also what was sent before at a lower priority: it may still lie deep in the queue. Made
        # twice costs one look into the store.
        _send(wanted.filter(state__in=[JobState.PENDING, JobState.RUNNING]))
    dispatch()


def prepare(project: Project, slice_ids: Sequence[UUID]) -> None:
    """See to the embeddings of what has come or was let go; for a later model, the sweep does."""
    model_digest = active_digest(project)
    if model_digest is not None and slice_ids:
        request(slice_ids, model_digest=model_digest, priority=broker.PRIORITY_LATER)


def request_missing() -> None:
    """Request what no one has: slices that were ingested before there was a (new) model."""
    projects: dict[str, list[UUID]] = defaultdict(list)
    for project_id, digest in active_digests().items():
        projects[digest].append(project_id)
    for digest, project_ids in projects.items():
        slices = Slice.objects.filter(not_held("series__"), series__study__project__in=project_ids)
        missing = slices.exclude(encodings__model_digest=digest).values_list("id", flat=True)
        slice_ids = list(missing[:MISSING_AT_ONCE])
        if slice_ids:
            request(slice_ids, model_digest=digest, priority=broker.PRIORITY_LATER)


def forget_models(project: Project, *, keep: Collection[str]) -> set[str]:
    """Take back a project's embeddings of other models; the keys that nothing uses any more."""
    with transaction.atomic():
        encodings = Encoding.objects.filter(slice__series__study__project=project).exclude(
            model_digest__in=keep
        )
        keys = set(encodings.values_list("embedding_key", flat=True))
        encodings.delete()
        return unused_embeddings(keys)


def dispatch() -> None:
    """Send the next encodings in line, as many as the short queue takes."""
    with transaction.atomic():
        in_flight = Encoding.objects.filter(
            state=JobState.RUNNING, heartbeat_at__gt=timezone.now() - SILENT_AFTER
        ).count()
        room = IN_FLIGHT - in_flight
        if room <= 0:
            return
        pending = Encoding.objects.filter(
            not_held("slice__series__"), state=JobState.PENDING
        ).order_by("priority", "created_at", "id")
        chosen = list(
            pending.select_for_update(skip_locked=True, of=("self",), no_key=True).values_list(
                "id", flat=True
            )[:room]
        )
        _send(Encoding.objects.filter(id__in=chosen))


def receive(event: SlicesEncoded) -> None:
    """Take note of what has been encoded, tell the pages, and send the next."""
    with transaction.atomic():
        fates = {UUID(fate.encoding_id): fate for fate in event.slices}
        encodings = list(
            Encoding.objects.select_for_update(of=("self",), no_key=True)
            .filter(id__in=fates.keys())
            .exclude(state=JobState.DONE)
        )
        for encoding in encodings:
            fate = fates[encoding.id]
            if fate.code is None:
                encoding.state = JobState.DONE
                encoding.finished_at = timezone.now()
                # It may have been given up before its answer came.
                encoding.error_code = encoding.error_message = ""
                encoding.save(update_fields=["state", "finished_at", "error_code", "error_message"])
            else:
                jobs.fail(encoding, code=fate.code, message=fate.message)
        _tell([encoding.slice_id for encoding in encodings], model_digest=event.model_digest)
    dispatch()


def forget(slices: QuerySet[Slice]) -> set[str]:
    """Take back what is known of slices' embeddings; the keys of those that no other slice uses."""
    with transaction.atomic():
        encodings = Encoding.objects.filter(slice__in=slices)
        keys = set(encodings.values_list("embedding_key", flat=True))
        encodings.delete()
        return unused_embeddings(keys)


def sweep() -> None:
    """Take back what has been silent, give up what failed too often, and send what is due."""
    # What was sent after the worker was last alive lies in its queue.
    sent = Encoding.objects.filter(state=JobState.RUNNING)
    jobs.mark_sent(worker.unseen(sent, queue=EncodeSlices.queue))
    # Those that were never sent wait for their turn, by the thousand: they are no news.
    for encoding in jobs.release_after_silence(Encoding, states=[JobState.RUNNING]):
        if encoding.attempt >= MAX_ATTEMPTS:
            jobs.fail(
                encoding,
                code="gave_up",
                message=f"The slice was sent to be encoded {MAX_ATTEMPTS} times without an answer.",
            )
            _tell([encoding.slice_id], model_digest=encoding.model_digest)
    request_missing()
    dispatch()


def _send(encodings: QuerySet[Encoding]) -> None:
    with transaction.atomic():
        rows = list(
            encodings.select_related("slice__series")
            .select_for_update(of=("self",), no_key=True)
            .order_by("model_digest", "priority", "slice__index")
        )
        for encoding in rows:
            if encoding.state != JobState.RUNNING:
                # Looking at a slice hurries it; it is no attempt that failed.
                encoding.attempt += 1
            encoding.state = JobState.RUNNING
            encoding.heartbeat_at = timezone.now()
        Encoding.objects.bulk_update(rows, ["state", "attempt", "heartbeat_at"])
        for batch in _batches(rows):
            worker.send(
                EncodeSlices(
                    model_digest=batch[0].model_digest,
                    items=tuple(
                        EncodeItem(encoding_id=str(row.id), image=image_of(row.slice))
                        for row in batch
                    ),
                ),
                priority=batch[0].priority,
            )


def _batches(rows: Sequence[Encoding]) -> list[list[Encoding]]:
    batches: list[list[Encoding]] = []
    for row in rows:
        last = batches[-1] if batches else []
        alike = last and (last[0].model_digest, last[0].priority) == (
            row.model_digest,
            row.priority,
        )
        if alike and len(last) < MAX_BATCH:
            last.append(row)
        else:
            batches.append([row])
    return batches


def _tell(slice_ids: Sequence[UUID], *, model_digest: str) -> None:
    touched = Series.objects.filter(
        id__in=Slice.objects.filter(id__in=slice_ids).values("series_id")
    )
    for series in counted(touched, model_digest=model_digest).select_related("study"):
        fates = Encoding.objects.filter(
            slice_id__in=slice_ids, slice__series=series, model_digest=model_digest
        )
        done = fates.filter(state=JobState.DONE).values_list("slice_id", flat=True)
        failed = fates.filter(state=JobState.FAILED).values_list("slice_id", flat=True)
        live.tell(
            series.study.project_id,
            "encoding",
            id=series.id,
            study_id=str(series.study_id),
            series_id=str(series.id),
            prepared=vars(series)["prepared"],  # counted by the selector
            total=vars(series)["slice_count"],
            slice_ids=[str(slice_id) for slice_id in done],
            # Somebody may be waiting for one of these.
            failed_ids=[str(slice_id) for slice_id in failed],
        )
