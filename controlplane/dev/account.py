"""Who PostgreSQL runs as, since it refuses to run as root, and where that account can reach its files."""

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from controlplane.model.errors import LocalServerError

ROOTS_PLACE = Path("/var/lib/shorthold")
"""Where root keeps what another account has to reach: a project's own directory stays closed (0700)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account of this machine without privileges."""

    name: str
    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Whether it can read `path`, as far as the permission bits of all directories above say."""
        whole = path.resolve()
        return all(_opens(step, self, stat.S_IXOTH) for step in whole.parents) and _opens(whole, self, stat.S_IROTH)


def unprivileged() -> Account | None:
    """The account to drop to, None where we are not root and need not drop.

    Raises: LocalServerError: root, and neither `postgres` nor `nobody` is an account here.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise LocalServerError("PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to use")


def roots_place() -> Path:
    """`/var/lib/shorthold`, made by us (0711: one may pass through, nobody may look around).

    Raises: LocalServerError: it cannot be made, or is somebody else's.
    """
    try:
        ROOTS_PLACE.mkdir(mode=0o711, exist_ok=True)
        found = ROOTS_PLACE.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise LocalServerError(f"{ROOTS_PLACE} is not a directory that only root may write to")
        ROOTS_PLACE.chmod(0o711)
    except OSError as error:
        raise LocalServerError(f"{ROOTS_PLACE} is needed when running as root: {error.strerror}") from None
    return ROOTS_PLACE


def within_reach(programs: Path, libraries: Path, version: str, account: Account | None) -> Path:
    """The directory of the programs as `account` can run them: `programs` itself, or a copy under root's place."""
    if account is None or (account.reaches(programs / "bin" / "postgres") and account.reaches(libraries)):
        return programs
    copy = roots_place() / f"postgresql-{version}"
    if not copy.exists():
        draft = Path(mkdtemp(dir=copy.parent, prefix=f"{copy.name}."))
        shutil.copytree(programs, draft / programs.parent.name / programs.name)
        shutil.copytree(libraries, draft / libraries.name)  # the programs look for it at this very place
        draft.chmod(0o755)
        draft.rename(copy)
    return copy / programs.parent.name / programs.name


def _opens(path: Path, account: Account, bit: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & (bit << 6))
    if found.st_gid == account.gid:
        return bool(found.st_mode & (bit << 3))
    return bool(found.st_mode & bit)
