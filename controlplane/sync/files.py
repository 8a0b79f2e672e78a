"""Files of a directory that others write: read with bounds, and looked at again when one of them has changed."""

import os
import stat
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from controlplane.model.errors import ConfigurationError
from controlplane.sync.document import MAX_BYTES, START, RefusedError

LOOK_AGAIN = 1.0  # seconds

Value = TypeVar("Value")


class Fresh(Generic[Value]):
    """A value made of files, made anew when its stamp differs. Looks once a second at most; safe for threads.

    `stamp` tells one state of the files from every other. When looking or making fails, the value is what `failed`
    says, and the next look tries again.
    """

    def __init__(
        self,
        stamp: Callable[[], Hashable],
        make: Callable[[], Value],
        failed: Callable[[Exception], Value],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stamp, self._make, self._failed, self._monotonic = stamp, make, failed, monotonic
        self._lock = threading.Lock()
        self._known: tuple[Hashable, Value] | None = None
        self._looked_at = float("-inf")

    def now(self) -> Value:
        """The value as the files stood a second ago at most."""
        known = self._known
        if known is not None and self._monotonic() - self._looked_at < LOOK_AGAIN:
            return known[1]
        with self._lock:
            if self._known is None or self._monotonic() - self._looked_at >= LOOK_AGAIN:  # nobody else has looked
                self._known = self._look(self._known)
                self._looked_at = self._monotonic()
            return self._known[1]

    def _look(self, known: tuple[Hashable, Value] | None) -> tuple[Hashable, Value]:
        try:
            stamp = self._stamp()
            return known if known is not None and stamp == known[0] else (stamp, self._make())
        except (OSError, ConfigurationError) as error:
            return _FAILED, self._failed(error)


_FAILED = object()
"""Equals no stamp."""


def stamps(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of every file: whatever is written changes one of them.

    Raises: OSError: the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        found = [(entry.name, _stat(entry)) for entry in entries]
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found if stat))


def read(directory: Path, name: str) -> bytes:
    """The file's bytes, one more than allowed at most: never a device, a pipe, or a file outside the directory.

    Raises: RefusedError: it is none of these, or cannot be read.
    """
    path = directory / name
    try:
        if not path.resolve().is_relative_to(directory.resolve()):
            raise RefusedError(START, "outside", "this is a link to a file outside the directory")
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", closefd=True) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RefusedError(START, "not-a-file", "this is not a regular file")
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RefusedError(START, "unreadable", f"the file cannot be read: {error.strerror or error}") from None


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None  # a dangling link, or gone while we looked
