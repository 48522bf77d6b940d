"""What must hold before anything is started; each refusal says what to do."""

from __future__ import annotations

import shutil

from delineate.config.env import Machine
from delineate.supervision import ports
from delineate.supervision.installation import Installation
from delineate.supervision.refusals import DiskFull, FrontendMissing, PortBusy


def check_room(installation: Installation, machine: Machine) -> None:
    """Raise DiskFull when there is too little room for the databases to run safely."""
    free = shutil.disk_usage(installation.var).free
    if free < machine.min_free_bytes:
        raise DiskFull(
            f"Only {free / 1e6:.0f} MB are free on the disk of {installation.var}, and at least "
            f"{machine.min_free_bytes / 1e6:.0f} MB are needed to start: make room there, or "
            "choose another disk with --var."
        )


def check_port(port: int, *, instead: str) -> None:
    """Raise PortBusy when somebody else listens there; ``instead``: how another port is named."""
    if not ports.is_free(port):
        raise PortBusy(
            f"Port {port} is in use by {ports.listener(port)}: stop that, or choose another port "
            f"with {instead}."
        )


def check_frontend(machine: Machine) -> None:
    """Raise FrontendMissing when there are no pages to serve."""
    if not (machine.frontend / "index.html").is_file():
        raise FrontendMissing(
            f"The pages have not been built ({machine.frontend} has no index.html): run `make up`, "
            "or `npm ci && npm run build` in frontend/."
        )
