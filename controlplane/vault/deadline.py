"""Connections on which a whole answer has one deadline, however slowly its bytes drip in.

A socket's timeout begins anew with every byte received; a server that sends one byte a second would hold a caller
for ever.
"""

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any, cast

from typing_extensions import Buffer, override
from urllib3.connection import HTTPConnection, HTTPSConnection


class _TimedReader(io.RawIOBase):
    """Reads from a socket until the timeout that the socket had at first has passed in all."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._raw = cast("io.RawIOBase", sock.makefile("rb", buffering=0))
        span = sock.gettimeout()
        self._ends = None if span is None else time.monotonic() + span

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int | None:
        if self._ends is not None:
            left = self._ends - time.monotonic()
            if left <= 0:
                raise TimeoutError("the whole answer took too long")
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    @override
    def close(self) -> None:
        self._raw.close()
        super().close()


class _Timed:
    """Stands in for the socket when `http.client` asks it for a file to read the answer from."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode  # always "rb"
        return io.BufferedReader(_TimedReader(self._sock))


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(cast("socket.socket", _Timed(sock)), *args, **kwargs)


class TimedHTTPConnection(HTTPConnection):
    """Plain HTTP whose read timeout covers headers and body together."""

    response_class = _TimedResponse


class TimedHTTPSConnection(HTTPSConnection):
    """HTTPS whose read timeout covers headers and body together."""

    response_class = _TimedResponse
