"""`shorthold mcp`: the tools of a model, over stdio for one agent or over HTTP for many."""

from typing import TYPE_CHECKING

import click

from controlplane.model.errors import ConfigurationError

if TYPE_CHECKING:
    from controlplane.settings import Settings


@click.command()
@click.option("--http", is_flag=True, help="Serve HTTP, for many agents, each with its own token.")
@click.option("--host", default=None, help="With --http: address to listen on; loopback unless you say otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="With --http: port to listen on.")
def mcp(http: bool, host: str | None, port: int | None) -> None:
    """Give a model the tools find_access, request_access, explain_denial, finish_task, list_grants.

    None of them returns a secret: a program gets the credential, by `shorthold exec` or `@shorthold.tool`. Over stdio
    it is part of one agent, and asks the control plane with the agent's own token (docs/agents.md, "Who your agent
    is"). With --http it is another process of the control plane, with its settings; `mcp.resource` is what tokens must
    be for.

    \b
    Examples:
      shorthold mcp
      SHORTHOLD_MCP__RESOURCE=https://shorthold.acme.example/mcp shorthold mcp --http --port 8710
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    import importlib.util

    from controlplane.settings import load

    if importlib.util.find_spec("mcp") is None:
        raise ConfigurationError("for `shorthold mcp` install the extra: shorthold[mcp]")
    settings = load()
    if http:
        _over_http(settings.for_mcp(), host or settings.mcp.host, settings.mcp.port if port is None else port)
        return
    if host is not None or port is not None:
        raise click.UsageError("--host and --port are for --http")
    _over_stdio(settings.mcp.page)


def _over_stdio(page: str | None) -> None:
    from controlplane.http.log import configure
    from controlplane.mcp.tools import Tools
    from controlplane.sdk.over_asyncio import AsyncLine
    from controlplane.sdk.surroundings import surroundings

    surroundings()  # what is missing is told before anybody waits for an answer
    configure()  # on stderr: the other one speaks the protocol
    Tools(asks=lambda _: AsyncLine(surroundings()).step, page=page).serve().run()


def _over_http(settings: "Settings", host: str, port: int) -> None:
    import resource

    from controlplane.cli.listening import listen, run, shown
    from controlplane.http.app import create_app
    from controlplane.http.log import configure
    from controlplane.http.rates import rates
    from controlplane.http.wire import allow_many_files
    from controlplane.mcp.resource import resource_app
    from controlplane.settings import refuse_operator_token
    from controlplane.wiring.plane import wire

    refuse_operator_token()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # tokens pass through this memory: it is never dumped
    configure()
    listener = listen(host, port)
    allow_many_files()
    plane = wire(settings)
    app = resource_app(
        plane,
        create_app(plane, worker=False, limits=rates(settings.api.rate, settings.api.ending_rate)),
        resource=str(settings.mcp.resource),
        authorization_servers=settings.mcp.authorization_servers or [issuer.url for issuer in settings.issuers],
        page=settings.mcp.page,
    )
    run(app, listener, f"Shorthold's tools listen on {shown(listener)}")
