"""`shorthold serve`: the control plane itself."""

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    import socket

_BACKLOG: Final = 1024
"""Connections that wait to be accepted: more than one burst of half-open ones."""


@click.command()
@click.option("--host", default=None, help="Address to listen on; loopback unless you say otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port to listen on.")
@click.option("--worker/--no-worker", default=True, show_default=True, help="Also work through what is due.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes share the listening socket; more than one needs PostgreSQL as the store.",
)
@click.option("--socket", "inherited", type=int, default=None, hidden=True, help="The file number of a listener.")
def serve(host: str | None, port: int | None, worker: bool, workers: int, inherited: int | None) -> None:
    """Run the HTTP API and the worker until SIGTERM; what is at hand is finished first.

    With --workers N it is N processes, each with a worker of its own; one that dies is started anew.

    \b
    Examples:
      shorthold serve
      SHORTHOLD_CONFIG=/etc/shorthold/shorthold.toml shorthold serve --no-worker
      SHORTHOLD_STORE__URL=postgresql://db.acme.example/shorthold shorthold serve --workers 4
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    import resource
    import socket
    import sys
    from types import FrameType

    import uvicorn
    from typing_extensions import override

    from controlplane.http.app import create_app
    from controlplane.http.log import configure
    from controlplane.http.rates import rates
    from controlplane.http.wire import Wire, allow_many_files
    from controlplane.model.errors import ConfigurationError
    from controlplane.settings import load, refuse_operator_token
    from controlplane.wiring import wire

    refuse_operator_token()
    settings = load()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # credentials pass through this memory: it is never dumped
    configure()
    address = (host or settings.api.host, settings.api.port if port is None else port)
    if workers > 1 and settings.store.url.startswith("sqlite"):
        raise ConfigurationError(
            "--workers needs PostgreSQL as store.url: SQLite has one writer, for which processes would only queue"
        )
    listener = _listen(*address) if inherited is None else socket.socket(fileno=inherited)
    allow_many_files()
    if workers > 1:
        from controlplane.cli.replicas import Replicas, command

        wire(settings).close()  # keys and tables are made once, and what is wrong is said once
        with listener:
            sys.exit(Replicas(command(worker=worker), listener, workers).run())
    if inherited is not None:
        from controlplane.cli.replicas import end_with_parent

        end_with_parent()
    plane = wire(settings)
    plane.entitlements.all()  # what is wrong with them stands in the log before anybody asks
    limits = rates(settings.api.rate, settings.api.ending_rate)
    app = create_app(plane, worker=worker, limits=limits)
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
            shown = f"[{address[0]}]" if ":" in address[0] else address[0]
            click.echo(f"Shorthold listens on http://{shown}:{listener.getsockname()[1]}", err=True)

        @override
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # A second Ctrl-C would cut off what is at hand; whoever cannot wait may kill -9, which loses nothing.
            if not self.should_exit:
                super().handle_exit(sig, frame)

    with listener:
        Telling(config).run(sockets=[listener])


def _listen(host: str, port: int) -> "socket.socket":
    import errno
    import socket

    from controlplane.model.errors import ConfigurationError

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {'the port is taken' if taken else error.strerror}"
        ) from None
