"""A loopback HTTP server that gives the answers it was told to give, and remembers what it was asked."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from typing_extensions import override

from controlplane.model.canonical import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came; `path` has its query, and the body of a form is a text."""

    method: str
    path: str
    headers: dict[str, str]
    body: JsonValue


@dataclass(slots=True, kw_only=True)
class Canned:
    """`answers` are status and body by `METHOD /path`, without the query; anything else is a bare 404."""

    addr: str = ""
    answers: dict[str, tuple[int, JsonValue]] = field(default_factory=dict[str, tuple[int, JsonValue]])
    asked: list[Asked] = field(default_factory=list[Asked])


@contextmanager
def canned() -> Generator[Canned]:
    """The server on a free port of 127.0.0.1, while the context lasts."""
    told = Canned()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = dict(self.headers.items())
            form = "form" in (self.headers.get("Content-Type") or "")
            body = raw.decode() if form else json.loads(raw) if raw else None
            told.asked.append(Asked(method=self.command, path=self.path, headers=headers, body=body))
            status, answer = told.answers.get(f"{self.command} {self.path.partition('?')[0]}", (404, None))
            # A text stands for a page of somebody else's, everything else goes out as JSON.
            sent = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST  # noqa: N815 # the name that http.server calls

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.addr = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
