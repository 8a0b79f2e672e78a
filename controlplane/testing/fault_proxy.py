"""A proxy on loopback that stands before an HTTP server and holds, cuts or forges what it is told to.

A request that is held *before* has not reached the server, and does when it is released, whether or not its sender
still lives; one that is held *after* has had its effect, and only the answer is on its way.
"""

import http.client
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, cast
from urllib.parse import urlsplit

from typing_extensions import override

_PATIENCE: Final = 60.0
_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


_Answered = tuple[int, list[tuple[str, str]], bytes]


class When(StrEnum):
    """On which side of the server's work something happens."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(eq=False)
class Fault:
    """What happens to the next request for `path` (a glob such as `/v1/database/creds/*`), once."""

    path: str
    when: When
    status: int | None = None
    """What is answered instead of the server's own answer."""
    twice: bool = False
    """Whether the server gets it a second time, as from a proxy that tries again by itself."""
    half: bool = False
    """Whether half of the answer arrives, and then the connection ends."""
    swap: threading.Barrier | None = None
    """Where two requests meet, to be answered with each other's answers."""
    _arrived: threading.Event = field(default_factory=threading.Event)
    _decided: threading.Event = field(default_factory=threading.Event)
    _answered: threading.Event = field(default_factory=threading.Event)
    _cut: bool = False

    def wait(self) -> None:
        """Until a request is held. Raises: TimeoutError: none came."""
        if not self._arrived.wait(_PATIENCE):
            raise TimeoutError(f"no request for {self.path} came")

    def release(self) -> None:
        """Let it go on."""
        self._decided.set()

    def cut(self) -> None:
        """Close its connection without an answer; a request that was held before is never sent."""
        self._cut = True
        self._decided.set()

    def answered(self) -> None:
        """Until the server has answered what was held. Raises: TimeoutError: it did not."""
        if not self._answered.wait(_PATIENCE):
            raise TimeoutError(f"the request for {self.path} was not answered")

    def answer(self) -> None:
        """The server has answered, whether or not somebody still listens."""
        self._answered.set()

    def met(self) -> bool:
        """Hold whoever comes; whether to go on."""
        self._arrived.set()
        self._decided.wait()
        return not self._cut


class FaultProxy:
    """Passes on what it is sent to `upstream` (`http://host:port`). Made by `fault_proxy`."""

    def __init__(self, upstream: str, port: int) -> None:
        self.upstream = urlsplit(upstream)
        self.addr = f"http://127.0.0.1:{port}"
        self.seen: list[str] = []
        self.status: int | None = None
        self.doubling = False
        """Whether every answer is sent twice over the same connection."""
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def hold(self, path: str, when: When) -> Fault:
        """Hold the next request for `path` until its fault is released or cut."""
        fault = Fault(path, when)
        with self._lock:
            self._faults.append(fault)
        return fault

    def cut(self, path: str, when: When) -> Fault:
        """Cut the connection of the next request for `path`."""
        fault = self.hold(path, when)
        fault.cut()
        return fault

    def forge(self, path: str, status: int, *, twice: bool = False) -> None:
        """Let the next request for `path` have its effect, or have it `twice`, and answer it with `status`."""
        fault = Fault(path, When.AFTER, status=status, twice=twice)
        fault.release()
        with self._lock:
            self._faults.append(fault)

    def halve(self, path: str) -> None:
        """Let the next request for `path` have its effect, and half of its answer arrive."""
        fault = Fault(path, When.AFTER, half=True)
        fault.release()
        with self._lock:
            self._faults.append(fault)

    def swap(self, path: str) -> None:
        """Let the next two requests for `path` have their effects, and answer each with the other's answer."""
        meeting = threading.Barrier(2, timeout=_PATIENCE)
        with self._lock:
            for _ in range(2):
                fault = Fault(path, When.AFTER, swap=meeting)
                fault.release()
                self._faults.append(fault)

    def calm(self) -> None:
        """Forget every fault that has met nobody yet, and pass everything on."""
        self.status, self.doubling = None, False
        with self._lock:
            self._faults.clear()

    def answer_only(self, status: int | None) -> None:
        """Answer everything with `status` and pass nothing on, until told None."""
        self.status = status

    def fault_for(self, path: str) -> Fault | None:
        """The fault that waits for such a request, used up by it."""
        with self._lock:
            self.seen.append(path)
            found = next((fault for fault in self._faults if fnmatchcase(path, fault.path)), None)
            if found is not None:
                self._faults.remove(found)
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultProxy
    held: list[Fault]
    left: dict[threading.Barrier, list[_Answered]]

    def swapped(self, meeting: threading.Barrier, answer: _Answered) -> _Answered:
        """The answer of the other one who comes to `meeting`."""
        self.left.setdefault(meeting, []).append(answer)
        meeting.wait()
        return next(other for other in self.left[meeting] if other is not answer)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets, and the second waited 40 ms for an ACK

    def _pass_on(self) -> None:
        server = cast("_Server", self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        fault = server.proxy.fault_for(path)
        if fault is not None:
            server.held.append(fault)
        if fault is not None and fault.when is When.BEFORE and not fault.met():
            self.close_connection = True
            return
        status, headers, content = self._forged(server.proxy) or self._asked(server.proxy, body)
        if fault is not None:
            fault.answer()
        if fault is not None and fault.twice:
            self._asked(server.proxy, body)
        if fault is not None and fault.when is When.AFTER and not fault.met():
            self.close_connection = True
            return
        if fault is not None and fault.status is not None:
            status, headers, content = fault.status, [], b""
        if fault is not None and fault.swap is not None:
            status, headers, content = server.swapped(fault.swap, (status, headers, content))
        self._answer(status, headers, content, half=fault is not None and fault.half)
        if server.proxy.doubling:
            self._answer(status, headers, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if half:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # how http.server finds what serves a method, and Vault has one of its own: LIST
            return self._pass_on
        raise AttributeError(name)

    def _forged(self, proxy: FaultProxy) -> _Answered | None:
        return None if proxy.status is None else (proxy.status, [], b"")

    def _asked(self, proxy: FaultProxy, body: bytes) -> _Answered:
        upstream = http.client.HTTPConnection(str(proxy.upstream.hostname), proxy.upstream.port, timeout=_PATIENCE)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Silence: tests look at `seen`."""


@contextmanager
def fault_proxy(upstream: str) -> Generator[FaultProxy]:
    """Run one on a free port while the block lasts; what is held then is cut."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy, server.held, server.left = FaultProxy(upstream, server.server_address[1]), [], {}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        for fault in server.held:
            with suppress(RuntimeError):
                fault.cut()
        server.shutdown()
        thread.join()
        server.server_close()
