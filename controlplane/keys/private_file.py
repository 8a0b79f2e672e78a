"""A file that only its owner reads: made once and whole, refused when others may read it."""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from controlplane.model.errors import ConfigurationError

_MAX_BYTES: Final = 16 * 1024


def read(path: Path, what: str) -> bytes | None:
    """The content of `path`, None where there is no such file; `what` is what errors call it.

    Raises: ConfigurationError: it cannot be read, is no regular file, is over 16 KiB, or others may read it.
    """
    try:
        # Not blocking: opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigurationError(f"the {what} {path} is not a file")
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigurationError(f"others may read the {what} {path}: `chmod 600` it")
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"the {what} {path} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"the {what} {path} is too long to be one")
    return content


def create(path: Path, content: bytes, what: str) -> None:
    """Make `path` (0600, in a directory made 0700 if it is missing) unless it exists; never overwrites.

    On disk when it returns. Of two processes at once one makes the file and the other leaves it: read it afterwards.
    Raises: ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(path, content)
    except OSError as error:
        raise ConfigurationError(f"the {what} {path} cannot be made: {error.strerror}") from None


def _create(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where another process was first, so that no key is ever overwritten.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
