"""What a newcomer finds: three people, a model, a project with labels, and four studies.

One of the studies is an ultrasound with a name in its pixels: it waits in quarantine for the lead.

Every step looks first whether it was done, so that this can be run at each start and after any
interruption. What people change afterwards (a name, a password, a deleted study) stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from django.conf import settings
from django.core.files.base import ContentFile, File
from django.db import transaction

from delineate.accounts import services as accounts
from delineate.accounts.models import User
from delineate.demo import data, sign_ins
from delineate.errors import DelineateError
from delineate.projects import services as projects
from delineate.projects.models import Project, Role
from delineate.registry import services as registry
from delineate.registry.models import ModelVersion
from delineate.studies import services as studies
from delineate.studies.models import Upload
from mlworker.contract.messages import Variant

PROJECT_NAME: Final = "Demo"
PEOPLE: Final[Mapping[Role, str]] = {
    Role.LEAD: "demo-lead",
    Role.REVIEWER: "demo-reviewer",
    Role.ANNOTATOR: "demo-annotator",
}
LABELS: Final = (
    projects.NewLabel("Liver", "#e4a04a"),
    projects.NewLabel("Spleen", "#9b6bd6"),
    projects.NewLabel("Kidney", "#4ac0a8"),
    projects.NewLabel("Lesion", "#e0567a"),
)
STUDIES: Final[Mapping[str, Callable[[], bytes]]] = {
    "phantom.zip": data.phantom_zip,
    "mr.zip": data.magnetic_resonance_zip,
    "ct.dcm": data.computed_tomography_file,
    "us.dcm": data.ultrasound_file,
}
# A decoder of random weights draws something from most seeds and nothing from some: this one reacts
# to prompts on the phantom.
MODEL_VARIANT: Final[Variant] = "vit_t"
MODEL_SEED: Final = 34


def main() -> int:
    """Make what is missing and print the sign-ins; 1 with a sentence when something is away."""
    path = settings.ENVIRONMENT.demo_sign_ins
    if path is None:
        print("Set DELINEATE_DEMO_SIGN_INS to the file for the demo's passwords.", file=sys.stderr)
        return 1
    try:
        passwords = seed(path)
    except DelineateError as error:
        print(f"{error} [{error.code}]", file=sys.stderr)
        return 1
    print(f"Demo sign-ins (kept in {path}):")
    for role, username in PEOPLE.items():
        print(f"  {username:<16}{passwords[username]:<22}{role.label.lower()}")
    return 0


def seed(path: Path) -> dict[str, str]:
    """Make what is missing of the demo; passwords by user name, kept in ``path``."""
    passwords = _people(path)
    lead = User.objects.get(username=PEOPLE[Role.LEAD])
    project = _project(lead)
    # Before the studies: what is ingested without a model is not prepared for clicks.
    if not ModelVersion.objects.exists() and registry.add_shipped() is None:
        registry.add_untrained(variant=MODEL_VARIANT, seed=MODEL_SEED)
    for name, content in STUDIES.items():
        _study(project, file=ContentFile(content(), name=name), lead=lead)
    return passwords


def _people(path: Path) -> dict[str, str]:
    passwords = sign_ins.read(path)
    missing = [username for username in PEOPLE.values() if username not in passwords]
    with transaction.atomic():
        for role, username in PEOPLE.items():
            password = passwords.setdefault(username, sign_ins.new_password())
            user = User.objects.filter(username=username).first()
            if user is None:
                accounts.create_user(
                    username, password=password, full_name=f"Demo {role.label.lower()}"
                )
            elif username in missing:
                accounts.set_password(user, new=password)
    if missing:
        sign_ins.write(path, passwords)
    return passwords


def _project(lead: User) -> Project:
    """The demo's project, whatever it is called by now: the first that its lead ever had."""
    project = Project.objects.filter(memberships__user=lead).order_by("created_at").first()
    if project is not None:
        return project
    with transaction.atomic():
        project = projects.create_project(PROJECT_NAME, labels=LABELS, by=lead)
        for role in (Role.REVIEWER, Role.ANNOTATOR):
            projects.add_member(project, username=PEOPLE[role], role=role, by=lead)
    return project


def _study(project: Project, *, file: File[bytes], lead: User) -> None:
    # The files are equal every time, and an upload's row outlives a deleted study.
    uploads = Upload.objects.filter(project=project, by=lead, size_bytes=file.size)
    if not uploads.exists():
        studies.receive_upload(project, files=[file], by=lead)
