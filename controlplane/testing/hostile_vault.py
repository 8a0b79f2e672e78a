"""A server on loopback that misbehaves on purpose, for whatever is tempted to believe in Vault's good manners."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from controlplane.model.canonical import JsonObject

Behaviour = Callable[[socket.socket], object]
"""What to do on a connection after each request."""


@dataclass
class HostileVault:
    """What the server was sent, and how often somebody connected."""

    behaviour: Behaviour
    port: int
    seen: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    tls: ssl.SSLContext | None = None

    @property
    def addr(self) -> str:
        """Its URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket) -> None:
        """Take connections until `listener` is shut down."""
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        with suppress(OSError), peer:
            peer.settimeout(10)
            with self.tls.wrap_socket(peer, server_side=True) if self.tls else peer as line:
                while request := _request(line):
                    self.seen.append(request)
                    self.behaviour(line)


@contextmanager
def hostile_vault(behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> Generator[HostileVault]:
    """Run one on a free port while the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HostileVault(behaviour, port=listener.getsockname()[1], tls=tls)
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def answering(status: int, body: bytes | JsonObject, *headers: str) -> Behaviour:
    """Answer every request with this."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *headers])
    return lambda peer: peer.sendall(head.encode() + b"\r\n\r\n" + content)


def saying(status: int, *texts: str) -> Behaviour:
    """Answer every request as Vault answers with errors."""
    return answering(status, {"errors": list(texts)}, "Content-Type: application/json")


def _request(peer: socket.socket) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        if not (more := peer.recv(65536)):
            return b""
        raw += more
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        if not (more := peer.recv(65536)):
            return b""
        body += more
    return head + b"\r\n\r\n" + body
