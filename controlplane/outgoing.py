"""One exchange with one configured address: no redirect, no proxy, no environment, and one deadline for all of it."""

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

Answer = TypeVar("Answer")

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)?",
    re.ASCII,
)
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what two URLs must share to be of one party (RFC 6454 4)."""
        return self.scheme, self.host, self.port


def place_of(url: str) -> Place:
    """The parts of `url`: https, or http on this machine only; without user, password or fragment.

    Raises: ValueError: anything else, without showing it: a path may be a secret.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("it is not a plain http(s) URL")
    scheme, host = parts["scheme"], parts["host"].strip("[]").lower()
    if scheme == "http" and not _is_loopback(host):
        raise ValueError("it must be https: plain http is for loopback only")
    port = int(parts["port"]) if parts["port"] else {"http": 80, "https": 443}[scheme]
    if not 0 < port <= _HIGHEST_PORT:
        raise ValueError("there is no such port")
    return Place(scheme, host, port, parts["target"] or "/")


class Exchange:
    """Asks over a connection of its own each time; `timeout` covers all of it, however slowly bytes drip in.

    Thread-safe. Raises: OSError: the CA file cannot be used.
    """

    def __init__(self, *, timeout: timedelta, cacert: Path | None = None) -> None:
        self.timeout = timeout
        # Not create_default_context(): that one writes session keys to wherever SSLKEYLOGFILE points.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        if cacert is None:
            self._tls.load_default_certs()
        else:
            self._tls.load_verify_locations(cafile=cacert)

    def __call__(
        self,
        method: str,
        place: Place,
        read: Callable[[HTTPResponse], Answer],
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Answer:
        """What `read` makes of the answer.

        Raises: ssl.SSLCertVerificationError, TimeoutError, another OSError, HTTPException: there was none; what was
        sent may have arrived.
        """
        span = self.timeout.total_seconds()
        with socket.create_connection((place.host, place.port), timeout=span) as plain, _cut_after(plain, span):
            connection = HTTPConnection(place.host, place.port)
            try:
                secured = place.scheme == "https"
                connection.sock = self._tls.wrap_socket(plain, server_hostname=place.host) if secured else plain
                connection.request(method, place.target, body, {**headers, "Connection": "close"})
                return read(connection.getresponse())
            finally:
                connection.close()


@contextlib.contextmanager
def _cut_after(sock: socket.socket, span: float) -> Generator[None]:
    """Cut the connection when `span` seconds have passed: a socket's own timeout begins anew with every byte.

    Raises: TimeoutError: it was cut.
    """
    handle = sock.dup()  # TLS takes the socket over; shutting a duplicate down ends the connection all the same
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with contextlib.suppress(OSError):  # the other side was faster
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(span, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException):
        if cut.is_set():
            raise TimeoutError from None
        raise
    else:
        if cut.is_set():  # http.client takes a cut among the headers for their end
            raise TimeoutError
    finally:
        timer.cancel()
        timer.join()
        handle.close()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
