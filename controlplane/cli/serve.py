"""`shorthold serve`: the control plane itself."""

import click


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

    from controlplane.cli.listening import listen, run, shown
    from controlplane.http.app import create_app
    from controlplane.http.log import configure
    from controlplane.http.rates import rates
    from controlplane.http.wire import allow_many_files
    from controlplane.model.errors import ConfigurationError
    from controlplane.settings import load, refuse_operator_token
    from controlplane.wiring.plane import wire

    refuse_operator_token()
    settings = load()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # credentials pass through this memory: it is never dumped
    configure()
    address = (host or settings.api.host, settings.api.port if port is None else port)
    if workers > 1 and settings.store.url.startswith("sqlite"):
        raise ConfigurationError(
            "--workers needs PostgreSQL as store.url: SQLite has one writer, for which processes would only queue"
        )
    listener = listen(*address) if inherited is None else socket.socket(fileno=inherited)
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
    run(app, listener, f"Shorthold listens on {shown(listener)}")
