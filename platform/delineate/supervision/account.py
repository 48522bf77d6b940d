"""Who runs the databases: the caller, or, for root, an unprivileged system user.

PostgreSQL refuses to run as root. Root therefore gets a system user of this project's name, made
once; its data lie in a folder that we make and give to it. No folder that we did not make ever
changes its owner or its mode: where a parent of the installation keeps others out (a checkout below
/root), data and a copy of the programs go below /var/lib instead.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from delineate.supervision.refusals import NoUser

SYSTEM_USER = "delineate"
OUTSIDE = Path("/var/lib")


@dataclass(frozen=True)
class Account:
    """A user of this machine, by number."""

    uid: int
    gid: int

    @property
    def is_caller(self) -> bool:
        """Whether no change of user is needed."""
        return self.uid == os.geteuid()


def database_account(existing: Path) -> Account:
    """Who runs the databases of an installation, whose folder may be ``existing`` already.

    The caller; for root the folder's owner, or the project's system user, made when missing
    (raises NoUser).
    """
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid())
    if existing.exists() and (owner := existing.stat()).st_uid != 0:
        return Account(uid=owner.st_uid, gid=owner.st_gid)
    entry = _system_user() or _make_system_user()
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def own_folder(path: Path, *, account: Account) -> Path:
    """A folder only ``account`` can enter: ``path``, or one outside where it cannot reach that.

    The parent of ``path`` must exist. What is already there is taken as it is.
    """
    if not can_reach(path.parent, account=account):
        token = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
        path = OUTSIDE / f"delineate-{token}"
    if not path.exists():
        path.mkdir(mode=0o700)
        if not account.is_caller:
            os.chown(path, account.uid, account.gid)
    return path


def reachable_program(package: str, part: str, *, folder: Path, account: Account) -> Path:
    """What the wheel of ``package`` carries at ``part``, or a copy of it in ``folder``.

    A copy where ``account`` cannot reach the original; named for the version it comes from.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations, package
    source = Path(spec.submodule_search_locations[0]) / part
    if can_reach(source, account=account):
        return source
    copy = folder / f"{source.name}-{importlib.metadata.version(package.replace('_', '-'))}"
    if not copy.exists():
        partial = folder / f"{copy.name}.copying"
        if source.is_dir():
            shutil.copytree(source, partial, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, partial)
        partial.rename(copy)
    return copy


def can_reach(path: Path, *, account: Account) -> bool:
    """Whether the modes of ``path`` and of every folder above it let ``account`` through."""
    if account.is_caller:
        return True
    return all(_may_pass(step.stat(), account) for step in (path, *path.parents))


def _may_pass(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def _system_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def _make_system_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = made.stderr.strip()
    except FileNotFoundError:
        reason = "there is no useradd here"
    # Asked again instead of trusting the exit status: another checkout may have made it meanwhile.
    entry = _system_user()
    if entry is None:
        raise NoUser(
            "PostgreSQL does not run as root, and the system user "
            f"“{SYSTEM_USER}” could not be made ({reason}). Make that user, or start as another."
        )
    return entry
