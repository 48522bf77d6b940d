"""Why an installation cannot start: each a code and a full sentence that says what to do.

CannotStart            cannot_start
├── PortBusy           port_busy
├── DiskFull           disk_full
├── AlreadyRunning     already_running
├── NotWritable        not_writable
├── OtherPostgres      other_postgres_version
├── FrontendMissing    frontend_not_built
├── NoUser             no_unprivileged_user
└── ChildFailed        child_failed
"""

from __future__ import annotations

from delineate.errors import DelineateError


class CannotStart(DelineateError):
    """Base; ``str(error)`` is the sentence for the console."""

    code = "cannot_start"


class PortBusy(CannotStart):
    """Somebody else listens on the port that was asked for."""

    code = "port_busy"


class DiskFull(CannotStart):
    """Too little room to start safely."""

    code = "disk_full"


class AlreadyRunning(CannotStart):
    """Another `delineate up` holds this installation."""

    code = "already_running"


class NotWritable(CannotStart):
    """The installation's folder cannot be made or written."""

    code = "not_writable"


class OtherPostgres(CannotStart):
    """The data were written by another major version."""

    code = "other_postgres_version"


class FrontendMissing(CannotStart):
    """There are no pages to serve."""

    code = "frontend_not_built"


class NoUser(CannotStart):
    """Run as root, and no unprivileged user can be had for the databases."""

    code = "no_unprivileged_user"


class NotRunning(CannotStart):
    """A command needs the installation's services, and they are not up."""

    code = "not_running"


class ChildFailed(CannotStart):
    """A process does not come up."""

    code = "child_failed"
