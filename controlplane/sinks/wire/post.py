"""POST to one configured address: no redirect, no proxy, no environment, one deadline, and the answer's body unread."""

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from controlplane.model.errors import ConfigurationError, SinkUnavailableError

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)?",
    re.ASCII,
)
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    target: str


def address_of(url: str) -> Address:
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
    return Address(scheme, host, port, parts["target"] or "/")


class Post:
    """Posts to one address, each time over a connection of its own; `timeout` covers all of it. Thread-safe.

    Raises: ConfigurationError: the CA file is no good.
    """

    def __init__(self, address: Address, *, timeout: timedelta, cacert: Path | None = None) -> None:
        self._address, self._timeout = address, timeout
        # Not create_default_context(): that one writes session keys to wherever SSLKEYLOGFILE points.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if cacert is None:
                self._tls.load_default_certs()
            else:
                self._tls.load_verify_locations(cafile=cacert)
        except OSError as error:
            raise ConfigurationError(f"the CA file {cacert} of a sink cannot be used: {error.strerror}") from None

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer. Raises: SinkUnavailableError: there was none; what was sent may have arrived."""
        try:
            return self._exchange(body, headers)
        except ssl.SSLCertVerificationError as error:
            raise SinkUnavailableError(f"it did not prove who it is (TLS): {error.verify_message}") from None
        except TimeoutError:
            raise SinkUnavailableError(f"no answer within {self._timeout.total_seconds():g} s") from None
        except (OSError, HTTPException) as error:
            raise SinkUnavailableError(f"no answer ({type(error).__name__})") from None

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> int:
        span, to = self._timeout.total_seconds(), self._address
        with socket.create_connection((to.host, to.port), timeout=span) as plain, _cut_after(plain, span):
            connection = HTTPConnection(to.host, to.port)
            try:
                secured = to.scheme == "https"
                connection.sock = self._tls.wrap_socket(plain, server_hostname=to.host) if secured else plain
                connection.request("POST", to.target, body, {**headers, "Connection": "close"})
                return connection.getresponse().status
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
