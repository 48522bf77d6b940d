"""Rows with real arrays in the store, as ingest and annotation leave them.

For tests that begin there. Each function makes one thing and what it cannot be without; everything
has a default but its parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
from django.test import Client
from django.utils import timezone
from pydicom import Dataset

from delineate import storage
from delineate.accounts.models import User
from delineate.annotation.models import MaskRevision, Review, Task
from delineate.annotation.transitions import State
from delineate.projects.models import Label, Membership, Project, Role
from delineate.projects.services import NewLabel, create_project
from delineate.registry.models import ModelVersion
from delineate.studies.burned_in import Reason
from delineate.studies.models import Instance, Quarantine, Series, Slice, Study, Subject
from delineate.studies.pixels import describe_pixels
from mlworker.contract import masks
from mlworker.contract.artifacts import array_digest, pack_array, pixels_key

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
COLORS = ("#aa3311", "#11aa33", "#3311aa", "#aaaa11")

_numbers = count(1)


def new_uid() -> str:
    """A DICOM UID that no other thing has."""
    return f"2.25.{uuid4().int}"


def new_user(username: str | None = None) -> User:
    """An account without a password."""
    return User.objects.create(username=username or f"user-{next(_numbers)}")


def browser_of(user: User) -> Client:
    """A client that is signed in as ``user``."""
    client = Client()
    client.force_login(user)
    return client


def new_project(*labels: str, lead: User | None = None, name: str = "Livers") -> Project:
    """A project with a lead, and labels of values 1, 2, … ("liver" when none is named)."""
    new = [
        NewLabel(label, COLORS[number % len(COLORS)])
        for number, label in enumerate(labels or ("liver",))
    ]
    return create_project(name, labels=new, by=lead or new_user())


def lead_of(project: Project) -> User:
    """The project's first lead."""
    return project.memberships.filter(role=Role.LEAD).select_related("user")[0].user


def new_member(project: Project, role: Role) -> User:
    """Somebody new who works in the project."""
    user = new_user()
    Membership.objects.create(project=project, user=user, role=role)
    return user


def label_of(project: Project, name: str) -> Label:
    """The project's label of that name."""
    return project.labels.get(name=name)


def new_study(project: Project, *, pseudonym: str = "S-AAAAAAAAAAAA") -> Study:
    """A study without series, the next in its project."""
    subject, _ = Subject.objects.get_or_create(project=project, pseudonym=pseudonym)
    return Study.objects.create(
        project=project,
        subject=subject,
        number=project.studies.count() + 1,
        study_uid=new_uid(),
    )


def new_series(
    study: Study,
    *,
    pixels: npt.NDArray[Any] | None = None,
    positions: Sequence[tuple[float, float, float]] | None = None,
    orientation: tuple[float, ...] | None = AXIAL,
    spacing_mm: tuple[float, float] | None = (1.0, 1.0),
    sop_class_uid: str = CT,
    modality: str = "CT",
    frames_per_instance: int = 1,
    frame_of_reference: bool = True,
) -> Series:
    """A series of ``pixels`` (slices, rows, columns[, 3]), int16 noise of 3 x 8 x 10 by default.

    ``spacing_mm``: between rows, between columns. ``positions``: of each slice, 2 mm apart along
    the normal by default; none where ``orientation`` is None. Frames fill multi-frame instances in
    the *reverse* order of the slices, so that nothing may take a frame's number for its place.
    """
    if pixels is None:
        pixels = np.random.default_rng(0).integers(-1000, 1000, (3, 8, 10), dtype=np.int16)
    if positions is None and orientation is not None:
        normal = np.cross(orientation[:3], orientation[3:])
        positions = [
            (float(x), float(y), float(z))
            for x, y, z in (2.0 * k * normal for k in range(len(pixels)))
        ]
    series = Series.objects.create(
        study=study,
        series_uid=new_uid(),
        number=study.series.count() + 1,
        modality=modality,
        rows=pixels.shape[1],
        columns=pixels.shape[2],
        row_spacing_mm=spacing_mm[0] if spacing_mm else None,
        column_spacing_mm=spacing_mm[1] if spacing_mm else None,
        orientation=None if orientation is None else list(orientation),
        frame_of_reference_uid=new_uid() if frame_of_reference and orientation else "",
        is_color=pixels.ndim == 4,
        window_centre=None if pixels.ndim == 4 else 0.0,
        window_width=None if pixels.ndim == 4 else 2000.0,
    )
    for first in range(0, len(pixels), frames_per_instance):
        of_instance = range(first, min(first + frames_per_instance, len(pixels)))
        instance = _new_instance(
            series, sop_class_uid=sop_class_uid, frames=len(of_instance), stored=pixels[first]
        )
        for number, index in enumerate(reversed(of_instance), start=1):
            _new_slice(
                instance,
                index=index,
                frame_number=number,
                stored=pixels[index],
                position=None if positions is None else positions[index],
            )
    return series


def hold(series: Series, *, because: Reason = Reason.ULTRASOUND) -> Series:
    """The series in quarantine, as ingest leaves one that may show a name."""
    series.quarantine, series.held_because = Quarantine.HELD, because
    series.save(update_fields=["quarantine", "held_because"])
    return series


def new_task(series: Series, *, state: State = State.ACCEPTED) -> Task:
    """The series' task; an accepted one with the review that accepted it."""
    task = Task.objects.create(series=series, state=state)
    if state == State.ACCEPTED:
        reviewer = new_member(series.study.project, Role.REVIEWER)
        Review.objects.create(task=task, decision=Review.Decision.ACCEPTED, reviewer=reviewer)
    return task


def accept_mask(
    task: Task,
    mask: npt.NDArray[np.bool_],
    *,
    index: int,
    label: Label,
    by: User | None = None,
    model_digest: str = "",
    hand_drawn_share: float = 1.0,
    prompts: dict[str, Any] | None = None,
    first_proposal: npt.NDArray[np.bool_] | None = None,
    at: datetime | None = None,
) -> MaskRevision:
    """The next revision of ``mask`` (rows, columns) on the task's slice ``index``."""
    slice_ = task.series.slices.get(index=index)
    number = MaskRevision.objects.filter(slice=slice_, label=label).count() + 1
    return MaskRevision.objects.create(
        task=task,
        slice=slice_,
        label=label,
        number=number,
        mask=masks.encode(mask).model_dump(mode="json"),
        by=by or lead_of(label.project),
        prompts=prompts or {"points": [], "box": None},
        model_digest=model_digest,
        first_proposal=None
        if first_proposal is None
        else masks.encode(first_proposal).model_dump(mode="json"),
        at=at or timezone.now(),
        hand_drawn_share=hand_drawn_share,
        active_seconds=1.5,
        draft_version=number,
    )


def new_model(digest: str = "ab" * 32, *, is_default: bool = True) -> ModelVersion:
    """A model's row; there are no weights behind it."""
    return ModelVersion.objects.create(
        digest=digest,
        name="SAM-Med2D tiny",
        variant="vit_t",
        image_size=256,
        adapters=True,
        trained=False,
        is_default=is_default,
    )


def _new_instance(
    series: Series, *, sop_class_uid: str, frames: int, stored: npt.NDArray[Any]
) -> Instance:
    sop_instance_uid = new_uid()
    header = Dataset()
    header.SOPClassUID = sop_class_uid
    header.SOPInstanceUID = sop_instance_uid
    header.StudyInstanceUID = series.study.study_uid
    header.SeriesInstanceUID = series.series_uid
    header.Modality = series.modality
    header.PhotometricInterpretation = "MONOCHROME2"
    describe_pixels(header, stored)
    header.PatientIdentityRemoved = "YES"
    return Instance.objects.create(
        series=series,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        number_of_frames=frames,
        header=header.to_json_dict(),
    )


def _new_slice(
    instance: Instance,
    *,
    index: int,
    frame_number: int,
    stored: npt.NDArray[Any],
    position: tuple[float, float, float] | None,
) -> Slice:
    slice_id: UUID = uuid4()
    key = pixels_key(str(instance.series.study_id), str(slice_id))
    storage.put(key, pack_array(stored))
    return Slice.objects.create(
        id=slice_id,
        series=instance.series,
        instance=instance,
        index=index,
        frame_number=frame_number,
        pixels_key=key,
        pixels_digest=array_digest(stored),
        placed={"position": None if position is None else list(position)},
    )
