"""The audit key: 32 random bytes that the hash chain is made with, kept apart from the database."""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret

FILE = "audit.key"
"""Its name in the directory of keys."""
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


def load(path: Path) -> Secret:
    """The audit key as 64 hex digits.

    Raises: ConfigurationError: there is none, others may read it, or it is no audit key.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(256).decode("ascii", errors="replace").strip()
    except FileNotFoundError:
        raise ConfigurationError(f"there is no audit key at {path}") from None
    except OSError as error:
        raise ConfigurationError(f"the audit key {path} cannot be read: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"others may read the audit key {path}: `chmod 600` it")
    if _HEX.fullmatch(text) is None:
        raise ConfigurationError(f"{path} is no audit key: it must hold 64 hex digits")
    return Secret(text)


def load_or_create(path: Path) -> Secret:
    """The audit key at `path`, made there (0600, in a directory made 0700) if it does not exist yet.

    Two processes that start at once get the same key. Raises: ConfigurationError: see `load`; not writable.
    """
    if not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path)
        except OSError as error:
            raise ConfigurationError(f"the audit key {path} cannot be made: {error.strerror}") from None
    return load(path)


def _create(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where another process was first, so no key is ever overwritten.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
