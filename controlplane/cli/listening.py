"""A socket that is listened on, and a server over it that ends in order: for every command that serves HTTP."""

import errno
import socket
from types import FrameType
from typing import TYPE_CHECKING, Final

import click
import uvicorn
from typing_extensions import override

from controlplane.http.wire import Wire
from controlplane.model.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_BACKLOG: Final = 1024
"""Connections that wait to be accepted: more than one burst of half-open ones."""


def listen(host: str, port: int) -> socket.socket:
    """A listener there; 0 is any free port. Raises: ConfigurationError: somebody else has it, or it is not ours."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {'the port is taken' if taken else error.strerror}"
        ) from None


def shown(listener: socket.socket) -> str:
    """Where it listens, as an address."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: "ASGIApp", listener: socket.socket, says: str) -> None:
    """Serve `app` until SIGTERM; what is at hand is finished first. `says` is told on stderr once it answers."""
    config = uvicorn.Config(
        app,
        http=Wire,
        ws="none",
        server_header=False,
        backlog=_BACKLOG,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=10,
        lifespan="on",
        proxy_headers=False,  # uvicorn believes everybody on loopback; http/address.py has our own settings
    )

    class Telling(uvicorn.Server):
        @override
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            click.echo(says, err=True)

        @override
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # A second Ctrl-C would cut off what is at hand; whoever cannot wait may kill -9, which loses nothing.
            if not self.should_exit:
                super().handle_exit(sig, frame)

    with listener:
        Telling(config).run(sockets=[listener])
