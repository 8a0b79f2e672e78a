"""A TCP relay on loopback that can keep answers back, halve them, be late, and break.

`hold` makes the rare instants of a crash certain: the transaction is committed, and whoever asked for it can be killed
before it knows: what a server has done, and nobody has been told.
"""

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_PATIENCE: Final = 60.0
_CHUNK: Final = 65536

Upstream = Callable[[], int | None]
"""The port on loopback to which a new connection goes now, None where there is none: then it is closed."""


@dataclass(eq=False)
class Held:
    """Answers on the next connection on which `after` is sent are kept back once it has been passed on."""

    after: bytes
    _answered: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def wait(self, patience: float = _PATIENCE) -> None:
        """Until the server has done its work and its answer is held. Raises: TimeoutError: nobody sent it."""
        if not self._answered.wait(patience):
            raise TimeoutError(f"nobody sent {self.after!r}")

    def release(self) -> None:
        """Let the answers go, to whoever is still there."""
        self._released.set()

    def keep(self) -> None:
        """An answer is here: keep it until it is released."""
        self._answered.set()
        self._released.wait()


class Relay:
    """Passes bytes between `port` and wherever `upstream` says. Made by `relay`."""

    def __init__(self, upstream: Upstream, port: int) -> None:
        self.port = port
        self.lag = 0.0
        """Seconds by which whatever is sent or answered is late."""
        self._upstream = upstream
        self._lock = threading.Lock()
        self._awaited: list[Held] = []
        self._all: list[Held] = []
        self._lines: set[socket.socket] = set()
        self._clips = False

    def hold(self, after: bytes) -> Held:
        """Keep back what is answered to `after`, once."""
        held = Held(after)
        with self._lock:
            self._awaited.append(held)
            self._all.append(held)
        return held

    def serve(self, listener: socket.socket) -> None:
        """Take connections until `listener` is shut down."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def clip(self) -> None:
        """Let half of the next answer through, whoever's it is, and break its connection."""
        self._clips = True

    def sever(self) -> None:
        """Break every connection, also amid an answer. New ones are taken."""
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            _shut(line)

    def calm(self) -> None:
        """Release what is held, and misbehave no more."""
        self.lag, self._clips = 0.0, False
        with self._lock:
            self._awaited.clear()
        for held in self._all:
            held.release()

    def close(self) -> None:
        """Release what is held and break every connection."""
        self.calm()
        self.sever()

    def _join(self, client: socket.socket) -> None:
        port = self._upstream()
        try:
            if port is None:
                return
            with socket.create_connection(("127.0.0.1", port), timeout=30) as server:
                server.settimeout(None)
                for line in (client, server):  # small packets do not wait for ACKs: slow is only what is meant to be
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._lines |= {client, server}
                self._pump(client, server)
        except OSError:
            return  # nobody listens there, or one side hung up: so does the other
        finally:
            with self._lock:
                self._lines.discard(client)
            client.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        found: list[Held] = []

        def answers() -> None:
            with suppress(OSError):
                while more := server.recv(_CHUNK):
                    for held in found:
                        held.keep()
                    time.sleep(self.lag)
                    if self._clips:
                        self._clips = False
                        client.sendall(more[: len(more) // 2])
                        break
                    client.sendall(more)
            _shut(client)

        back = threading.Thread(target=answers, daemon=True)
        back.start()
        with suppress(OSError):
            while more := client.recv(_CHUNK):
                found.extend(self._found(more))
                time.sleep(self.lag)
                server.sendall(more)
        _shut(server)
        back.join()
        with self._lock:
            self._lines.discard(server)

    def _found(self, sent: bytes) -> list[Held]:
        with self._lock:
            now = next((held for held in self._awaited if held.after in sent), None)
            if now is None:
                return []
            self._awaited.remove(now)
        return [now]


@contextmanager
def relay(upstream: Upstream) -> Generator[Relay]:
    """Run one on a free port of 127.0.0.1 while the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        between = Relay(upstream, listener.getsockname()[1])
        thread = threading.Thread(target=between.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield between
        finally:
            between.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _shut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
