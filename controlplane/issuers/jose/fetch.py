"""One JSON document from one configured address: no redirect, no proxy, no environment, limits on size and time."""

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from controlplane import __version__
from controlplane.issuers.jose.strict_json import parse_object
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError

MAX_BYTES: Final = 512 * 1024
"""The longest document that is read; real ones have a few KiB."""

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)?",
    re.ASCII,
)


class FetchError(Exception):
    """The document could not be had; the message says why, without anything of what was read."""


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

    Raises: ValueError: anything else.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("is not a plain http(s) URL")
    scheme, host = parts["scheme"], parts["host"].strip("[]").lower()
    if scheme == "http" and not _is_loopback(host):
        raise ValueError("must be https: plain http is for loopback only")
    port = int(parts["port"]) if parts["port"] else {"http": 80, "https": 443}[scheme]
    return Place(scheme, host, port, parts["target"] or "/")


class Fetcher:
    """Gets JSON objects; `timeout` covers all of one document, however slowly its bytes drip in. Thread-safe.

    Raises: ConfigurationError: the CA file is no good.
    """

    def __init__(self, *, cacert: Path | None = None, timeout: timedelta = timedelta(seconds=5)) -> None:
        self.timeout = timeout
        # Not create_default_context(): that one writes session keys to wherever SSLKEYLOGFILE points.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if cacert is None:
                self._tls.load_default_certs()
            else:
                self._tls.load_verify_locations(cafile=cacert)
        except OSError as error:
            raise ConfigurationError(f"the CA file {cacert} of an issuer cannot be used: {error.strerror}") from None

    def __call__(self, url: str) -> dict[str, JsonValue]:
        """The JSON object at `url`. Raises: FetchError: there is none to be had."""
        try:
            status, raw = self._exchange(place_of(url))
            if status != HTTPStatus.OK:
                raise FetchError(f"{url} answered {status}; redirects are not followed")
            if len(raw) > MAX_BYTES:
                raise FetchError(f"{url} answered with more than {MAX_BYTES} bytes")
            return parse_object(raw)
        except ssl.SSLCertVerificationError as error:
            raise FetchError(f"{url} did not prove who it is (TLS): {error.verify_message}") from None
        except TimeoutError:
            raise FetchError(f"{url} did not answer within {self.timeout.total_seconds():g} s") from None
        except (OSError, HTTPException) as error:
            raise FetchError(f"{url} did not answer ({type(error).__name__})") from None
        except ValueError as error:
            raise FetchError(f"{url} {error}") from None

    def _exchange(self, place: Place) -> tuple[int, bytes]:
        span = self.timeout.total_seconds()
        with socket.create_connection((place.host, place.port), timeout=span) as plain, _cut_after(plain, span):
            connection = HTTPConnection(place.host, place.port)
            try:
                connection.sock = (
                    self._tls.wrap_socket(plain, server_hostname=place.host) if place.scheme == "https" else plain
                )
                connection.request("GET", place.target, headers=_HEADERS)
                response = connection.getresponse()
                return response.status, response.read(MAX_BYTES + 1)
            finally:
                connection.close()


_HEADERS: Final = {"Accept": "application/json", "User-Agent": f"shorthold/{__version__}"}


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
