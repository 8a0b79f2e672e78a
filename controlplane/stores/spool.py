"""Events that the store cannot take: kept in a file, in order, until it can.

The file is made at its full size, so that a full disk takes them still. Each line carries a MAC of the audit key and
is on disk before anybody relies on it. A line that a crash cut off was relied on by nobody, and is passed over.
"""

import fcntl
import hmac
import json
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog

from controlplane.audit.chain import seal_link
from controlplane.model.canonical import canonical, instant
from controlplane.model.event import Event, Kind
from controlplane.model.secret import Secret

log = structlog.stdlib.get_logger(__name__)

_ROOM: Final = 256 * 1024
"""Bytes that are there from the start: about a thousand events. Beyond that the file grows, if the disk lets it."""
_CHUNK: Final = 16 * 1024
_TRIES, _PAUSE = 100, 0.02
"""Two seconds are left to a process that has the file: one that was stopped keeps nobody waiting."""
_NO_LINK: Final = "unsaved"
"""What stands where a link has the MAC before it: so none of these lines passes for a link of the chain."""


@dataclass(frozen=True, slots=True)
class _Line:
    event: Event
    start: int
    end: int


class FileSpool:
    """Fits the port Spool. Threads and processes may share the file; where it cannot be written, memory is left."""

    def __init__(self, path: Path, key: Secret) -> None:
        self._path, self._key = path, key
        self._memory: list[Event] = []
        self._lock = threading.Lock()
        try:
            with self._open() as file:
                size = os.fstat(file).st_size
                if size < _ROOM:
                    _write(file, bytes(_ROOM - size), size)
        except OSError as error:
            log.warning("spool_not_made", path=str(path), detail=error.strerror)

    def put(self, event: Event) -> None:
        """Keep it; one of its kind about its grant that waits already is enough."""
        try:
            with self._open() as file:
                content = _content(file)
                if any(_alike(line.event, event) for line in self._lines(content)):
                    return
                cut_off = b"" if not content or content.endswith(b"\n") else b"\n"
                _write(file, cut_off + self._sealed(event) + b"\n", len(content))
        except OSError as error:
            log.error("event_in_memory_only", path=str(self._path), detail=error.strerror)  # noqa: TRY400 # says it all
            with self._lock:
                if not any(_alike(kept, event) for kept in self._memory):
                    self._memory.append(event)

    def waiting(self) -> Sequence[Event]:
        """Those that are kept, oldest first."""
        kept: list[Event] = []
        try:
            with self._open() as file:
                kept = [line.event for line in self._lines(_content(file))]
        except OSError as error:
            log.warning("spool_not_read", path=str(self._path), detail=error.strerror)
        with self._lock:
            return sorted([*kept, *self._memory], key=lambda event: event.at)

    def forget(self, event: Event) -> None:
        """Let go of one that is in the store now. Where that cannot be written, it is offered again."""
        with self._lock:
            self._memory = [kept for kept in self._memory if kept.id != event.id]
        try:
            with self._open() as file:
                content = _content(file)
                lines = self._lines(content)
                # In place: a crash in between damages nothing but what is in the store already.
                for line in lines:
                    if line.event.id == event.id:
                        _write(file, b" " * (line.end - line.start), line.start)
                if all(line.event.id == event.id for line in lines):
                    _write(file, bytes(len(content)), 0)
        except OSError as error:
            log.warning("spool_not_written", path=str(self._path), detail=error.strerror)

    @contextmanager
    def _open(self) -> Generator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._path, flags, 0o600)
        try:
            _lock(file)
            yield file
        finally:
            os.close(file)

    def _sealed(self, event: Event) -> bytes:
        told = {"id": event.id, "at": instant(event.at), "kind": event.kind.value, "grant": event.grant}
        return canonical({**told, "body": dict(event.body), "mac": seal_link(self._key, _NO_LINK, 0, event)})

    def _lines(self, content: bytes) -> Sequence[_Line]:
        found: list[_Line] = []
        start = 0
        for text in content.split(b"\n"):
            event = self._event(text)
            if event is not None:
                found.append(_Line(event, start, start + len(text)))
            start += len(text) + 1
        return found

    def _event(self, text: bytes) -> Event | None:
        try:
            told: dict[str, Any] = json.loads(text)
            event = Event(
                id=str(told["id"]),
                at=datetime.fromisoformat(told["at"]),
                kind=Kind(told["kind"]),
                grant=told["grant"],
                body=told["body"],
            )
            ours = hmac.compare_digest(str(told["mac"]), seal_link(self._key, _NO_LINK, 0, event))
        except (ValueError, KeyError, TypeError):
            return None
        return event if ours else None


def _lock(file: int) -> None:
    """Wait for whoever works on the file. Raises: BlockingIOError: he does not come to an end."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        threading.Event().wait(_PAUSE)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _alike(one: Event, other: Event) -> bool:
    return (one.kind, one.grant) == (other.kind, other.grant)


def _content(file: int) -> bytes:
    """Everything up to the room that is left."""
    found = b""
    while chunk := os.pread(file, _CHUNK, len(found)):
        found += chunk
        if chunk.endswith(b"\0"):
            break
    return found.rstrip(b"\0")


def _write(file: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(file, content, at)
        content, at = content[written:], at + written
    os.fsync(file)
