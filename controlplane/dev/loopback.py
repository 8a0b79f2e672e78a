"""This machine's loopback: its free ports, and plain questions to the servers that listen there."""

import http.client
import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HOST: Final = "127.0.0.1"
_FIRST: Final = 15_000
_LAST: Final = 32_000
_ENOUGH: Final = 1_000
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def ask(port: int, method: str, path: str, body: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer; status 0 where there is none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, dict(json.loads(response.read() or "{}"))
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return 0, {}
    finally:
        connection.close()


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(but: set[int]) -> int:
    """A port that is free now, and none of `but`.

    It is none of those that this system gives to outgoing connections, so that it is still free after a restart.
    """
    ports = lasting(outgoing())
    while True:
        port = secrets.choice(ports)
        if port not in but and is_free(port):
            return port


def lasting(taken: range) -> Sequence[int]:
    """Ports for servers outside of `taken`; where that leaves hardly any, those that most systems leave alone."""
    usual = range(_FIRST, _LAST)
    for ports in (range(_FIRST, min(_LAST, taken.start)), range(max(_FIRST, taken.stop), 1 << 16)):
        if len(ports) >= _ENOUGH:
            return ports
    return usual


def outgoing() -> range:
    """The ports that this system gives to outgoing connections; Linux says so, elsewhere it is the usual range."""
    try:
        first, last = _OUTGOING.read_text(encoding="ascii").split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return range(32_768, 61_000)
