"""uvicorn's HTTP protocol with what it lacks: limits on the size of a head, its time, and on who waits unheard.

uvicorn waits for ever for the end of a request's headers and stores all that comes; with `limit_concurrency` such
connections would shut everybody out. Here the one that has said the least for the longest makes room.
"""

import asyncio
import resource
from typing import Any, ClassVar, Final, cast

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from controlplane.http.problems import problem
from controlplane.http.refusals import HeadTooLargeError, MalformedRequestError, TooSlowError
from controlplane.model.errors import ControlPlaneError

HEAD_WITHIN: Final = 10.0
"""Seconds from a connection's beginning, or a request's first byte on one that is kept, to the end of its headers."""
LARGEST_HEAD: Final = 32 * 1024
"""Bytes of request line and headers together."""
MOST_UNHEARD: Final = 1000
"""Connections that may be open without a whole request."""
_FILES: Final = 16 * 1024


class Wire(HttpToolsProtocol):
    """One connection. Source: RFC 9110 15.5.9 (408), RFC 6585 5 (431), RFC 9112 3.2 (the request's target)."""

    _unheard: ClassVar[dict["Wire", None]] = {}  # of this process's one server, the longest waiting first

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._why: ControlPlaneError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._read = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        self._wait_unheard()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        self._stop_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The parser keeps a header until its end: whatever has no end yet is counted here.
        if self._in_head and not self.transport.is_closing():
            self._read += len(data)
            if self._read > LARGEST_HEAD:
                self._refuse(HeadTooLargeError(f"the headers are larger than {LARGEST_HEAD} bytes"))

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._read = True, 0
        if self._timer is None:
            self._await_head()

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            self._why = HeadTooLargeError(f"the headers are larger than {LARGEST_HEAD} bytes")
            raise self._why
        if not self.url.startswith(b"/"):
            self._why = MalformedRequestError("the target of a request is a path here")
            raise self._why
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        self._heard()
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self._answering:
            self._wait_unheard()

    @override
    def send_400_response(self, msg: str) -> None:
        del msg
        self._refuse(self._why or MalformedRequestError("this is not HTTP/1.1 as it should be"))

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: anybody can ask to speak another protocol, and is answered in this one."""

    @property
    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _wait_unheard(self) -> None:
        self._unheard[self] = None
        while len(self._unheard) > MOST_UNHEARD:
            longest = next(iter(self._unheard))
            del self._unheard[longest]
            longest.transport.abort()

    def _heard(self) -> None:
        self._unheard.pop(self, None)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_WITHIN, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._refuse(TooSlowError(f"the headers did not arrive within {HEAD_WITHIN:g} s"))

    def _refuse(self, error: ControlPlaneError) -> None:
        """Answer what is no request, and close; where an answer has begun or is awaited before it, only close."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self._answering and not self.cycle.response_started and not self.pipeline:
            self.cycle.disconnected = True  # its body turned out to be none: the application has nothing to say to it
            self.cycle.message_event.set()
        if not self._answering or self.cycle.disconnected:
            answer = problem(error)
            headers = [*answer.raw_headers, (b"connection", b"close"), (b"cache-control", b"no-store")]
            lines = [b"HTTP/1.1 %d %s" % (error.status, error.status.phrase.encode())]
            lines.extend(b"%s: %s" % header for header in headers)
            self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()


def allow_many_files() -> None:
    """Let this process have more connections open than the usual 1024 files, as far as its owner may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
