"""This machine's loopback: its free ports, and plain questions to the servers that listen there."""

import http.client
import json
import secrets
import socket
from collections.abc import Mapping
from typing import Any, Final

HOST: Final = "127.0.0.1"
_FIRST: Final = 15_000
_LAST: Final = 32_000


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

    It lies below those that systems give to outgoing connections, so that it is still free after a restart.
    """
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port not in but and is_free(port):
            return port
