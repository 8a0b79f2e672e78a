"""The audit key: 32 random bytes that the hash chain is made with, kept apart from the database."""

import re
import secrets
from pathlib import Path
from typing import Final

from controlplane.keys import private_file
from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret

FILE: Final = "audit.key"
"""Its name in the directory of keys."""
_WHAT: Final = "audit key"
_HEX: Final = re.compile(rb"([0-9a-f]{64})\s*")


def load(path: Path) -> Secret:
    """The audit key at `path`, as 64 hex digits.

    Raises: ConfigurationError: there is none, others may read it, or it is no audit key.
    """
    content = private_file.read(path, _WHAT)
    if content is None:
        raise ConfigurationError(f"there is no audit key at {path}: put it back, no other one fits its store")
    found = _HEX.fullmatch(content)
    if found is None:
        raise ConfigurationError(f"{path} is no audit key: it must hold 64 hex digits")
    return Secret(found[1].decode("ascii"))


def load_or_create(path: Path) -> Secret:
    """The audit key at `path`, made there (0600, in a directory made 0700) if it does not exist yet.

    Two processes that start at once get the same key. Raises: ConfigurationError: see `load`; not writable.
    """
    if private_file.read(path, _WHAT) is None:
        private_file.create(path, f"{secrets.token_hex(32)}\n".encode("ascii"), _WHAT)
    return load(path)
