"""A file to which each event is appended as one line of JSON: for whatever reads files and sends them on."""

import os
import stat
from pathlib import Path

from controlplane.audit.export import jsonl
from controlplane.model.errors import SinkUnavailableError
from controlplane.model.event import Link
from controlplane.ports import Clock
from controlplane.sinks import PrivateFile, SinkKind, SinkOptions


class JsonlOptions(SinkOptions):
    """The file, made (0600) if it is not there; its directory must be."""

    kind: str = "jsonl"
    path: Path


class JsonlSink:
    """Fits the port Sink. The file is opened anew for each event, so that it may be moved away at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, link: Link) -> None:
        """Append one line; it is on disk when this returns. Raises: SinkUnavailableError."""
        line = "".join(jsonl([link])).encode()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open(self._path, flags, 0o600), "r+b", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SinkUnavailableError("it is no regular file")
                if not _ends_a_line(file.fileno()):
                    line = b"\n" + line  # the last one was cut off; it was told again, or will be
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise SinkUnavailableError(f"the file cannot be written: {error.strerror}") from None


def _ends_a_line(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


def _make(options: JsonlOptions, clock: Clock, private_file: PrivateFile) -> JsonlSink:
    del clock, private_file
    return JsonlSink(options.path)


KIND = SinkKind(word="jsonl", options=JsonlOptions, make=_make)
