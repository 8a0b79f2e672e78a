"""A receiver of webhooks on loopback: it remembers what it was sent, and answers as it is told."""

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One POST; names of `headers` are in small letters."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The event's id, by which a repetition is known."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """`statuses` are answered in turn, then 204; while `open` is cleared, nothing is answered."""

    addr: str = ""
    statuses: list[int] = field(default_factory=list[int])
    received: list[Received] = field(default_factory=list[Received])
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def kinds(self) -> list[str]:
        """What was received, repetitions included, in its order."""
        return [each.message["type"] for each in self.received]


@contextmanager
def receiver() -> Generator[Receiver]:
    """The server on a free port of 127.0.0.1, while the context lasts."""
    told = Receiver()
    told.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.received.append(Received(path=self.path, headers=headers, body=body))
            told.open.wait(60)
            self.send_response(told.statuses.pop(0) if told.statuses else HTTPStatus.NO_CONTENT)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # one that is not answered is left behind

        @override
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # whoever posted has given up

    with Server(("127.0.0.1", 0), Handler) as server:
        told.addr = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            told.open.set()
            server.shutdown()
            thread.join()
