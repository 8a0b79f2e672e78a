"""Private files for as long as they are needed: mode 0600, in a directory of their own, in memory if there is any."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Final

_OURS: Final = "shorthold-"
_IN_MEMORY: Final = "/dev/shm"  # noqa: S108 # a directory of mode 0700 is made in it


@contextlib.contextmanager
def private_directory(runtime: str | None = None) -> Generator[Path]:
    """A new directory (0700) in `runtime`, in /dev/shm or where temporary files go; gone when the context is left.

    One whose process was killed is removed by the next process of the same owner that makes one.
    """
    place = next((spot for spot in (runtime, _IN_MEMORY) if spot and os.access(spot, os.W_OK)), tempfile.gettempdir())
    _sweep(Path(place))
    made = Path(tempfile.mkdtemp(prefix=_OURS, dir=place))
    held = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)  # let go by the system, however this process ends
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def write_private(path: Path, text: str) -> Path:
    """A new file that nobody else can read. Raises: FileExistsError: there is one."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
    return path


def _sweep(place: Path) -> None:
    for left in place.glob(f"{_OURS}*"):
        with contextlib.suppress(OSError):
            held = os.open(left, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(held).st_uid == os.getuid():
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
