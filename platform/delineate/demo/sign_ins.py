"""The demo's passwords: made anew for each installation, kept in a file for its owner alone.

A line per user: user name, tab, password. The file is written after the passwords are set, whole or
not at all, so what it says was true; a run that died before has its passwords made again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

# Without letters and digits that are taken for each other. 32 of them: 5 bits each.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789+"


def new_password() -> str:
    """Eighty random bits, in four groups that can be typed."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


def read(path: Path) -> dict[str, str]:
    """Passwords by user name; none where there is no file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def write(path: Path, passwords: Mapping[str, str]) -> None:
    """Keep ``passwords``, readable for the owner of this process alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.writelines(f"{name}\t{password}\n" for name, password in passwords.items())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
