"""An installation as it runs now, seen from outside: for commands and for doctor."""

from __future__ import annotations

from pathlib import Path

from delineate.config.env import Machine
from delineate.supervision import health, postgres_server, redis_server
from delineate.supervision.installation import Installation, is_locked
from delineate.supervision.refusals import NotRunning


def environment(var: Path | None) -> dict[str, str]:
    """Addresses and key of the running installation in ``var``; raises NotRunning.

    Empty where the environment names all of them already: then there is nothing embedded to ask.
    """
    machine = Machine.read()
    named = (machine.database_url, machine.redis_url, machine.storage_url, machine.secret_key)
    if var is None and all(named):
        return {}
    installation = Installation((var or machine.var).absolute())
    if not is_locked(installation):
        raise NotRunning(
            f"The installation in {installation.var} is not running: start it with `delineate up`, "
            "or name another with --var."
        )
    return addresses(installation, machine)


def addresses(installation: Installation, machine: Machine) -> dict[str, str]:
    """What the installation's processes are told, from what its folder remembers."""
    secrets = installation.secrets()
    ports = installation.remembered_ports()
    return {
        "DELINEATE_SECRET_KEY": machine.secret_key or secrets.secret_key,
        "DJANGO_SETTINGS_MODULE": "delineate.config.settings",
        "DELINEATE_ORIGINS": machine.origins or health.own_origins(ports.get("web", machine.port)),
        "DATABASE_URL": machine.database_url
        or postgres_server.url(port=ports["postgres"], password=secrets.postgres_password),
        "REDIS_URL": machine.redis_url
        or redis_server.url(port=ports["redis"], password=secrets.redis_password),
        "STORAGE_URL": machine.storage_url or f"file://{installation.objects}",
        "DELINEATE_DEMO_SIGN_INS": str(installation.demo_sign_ins),
    }
