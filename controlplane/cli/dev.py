"""`shorthold dev`: real servers on loopback for one project, in its `.shorthold/`."""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.output import output_option, say, show

if TYPE_CHECKING:
    from controlplane.dev.stack import Stack
    from controlplane.model.canonical import JsonValue


@click.group()
def dev() -> None:
    """Real servers on loopback: OpenBao, PostgreSQL, an OIDC issuer, and the control plane between them.

    Everything is kept in `.shorthold/` of the current directory. BAO_ADDR or VAULT_ADDR (with an operator's BAO_TOKEN
    or VAULT_TOKEN) and DATABASE_URL (a superuser's) put servers of your own in the place of the embedded ones.

    \b
    Examples:
      shorthold dev up
      eval "$(shorthold dev env)"
      export SHORTHOLD_TOKEN="$(shorthold dev token --subject repo:acme/support-agent:ref:refs/heads/main)"
      shorthold dev down
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


@dev.command()
def up() -> None:
    """Start what does not run and set up what is not set up; what runs is left alone."""
    stack = _stack()
    stack.up()
    say(f"Ready. The control plane listens on {stack.api}; `shorthold dev env` prints what a shell needs.")


@dev.command()
@click.option("--destroy", is_flag=True, help="Also remove all data: grants, audit log, OpenBao, PostgreSQL, keys.")
@click.option("--yes", is_flag=True, help="Do not ask before removing.")
def down(destroy: bool, yes: bool) -> None:
    """Stop everything; data stays and `dev up` continues with it."""
    stack = _stack()
    if not destroy:
        stack.down()
        return
    if not yes:
        say(f"All data in {stack.home.directory} will be removed.")
        if not _typed("destroy"):
            raise click.ClickException("nothing was stopped or removed; --yes where nobody can type")
    stack.destroy()


@dev.command()
@output_option
def status(output: str) -> None:
    """Show what runs, where it listens, and its process."""
    parts = _stack().parts()
    address = {part.name: part.address for part in parts}
    rows: list[JsonValue] = [
        {"name": part.name, "state": part.state, "pid": part.pid, "address": part.address} for part in parts
    ]
    if output == "table":
        show(rows, output, columns=("name", "state", "pid", "address"))
        return
    show(
        {
            "api": address["serve"],
            "vault_addr": address["openbao"],
            "database_url": address["postgres"],
            "issuer": address["issuer"],
            "parts": rows,
        },
        output,
    )


@dev.command()
def env() -> None:
    """Print what a shell needs, to be evaluated. No secret is among it: PGPASSFILE names the file with the password."""
    for name, value in _stack().environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")


@dev.command()
@click.option("--subject", required=True, help="Whom the token is about: `sub`.")
@click.option("--claim", "claims", multiple=True, metavar="K=V", help="A further claim; / descends: a.io/b=c.")
@click.option("--claim-json", "json_claims", multiple=True, metavar="K=JSON", help="The same with a JSON value.")
@click.option("--audience", default="shorthold", show_default=True, help="Whom the token is for: `aud`.")
@click.option("--lifetime", default="10m", show_default=True, help="How long it is valid.")
@click.option("--issuer", "name", type=click.Choice(["dev"]), default="dev", show_default=True, help="Who signs it.")
def token(  # noqa: PLR0917 # click passes them by name
    subject: str, claims: tuple[str, ...], json_claims: tuple[str, ...], audience: str, lifetime: str, name: str
) -> None:
    """Print an OIDC token signed by the development issuer: a workload's, or a person's.

    \b
    Examples:
      shorthold dev token --subject repo:acme/refund-agent:ref:refs/heads/main --claim environment=prod
      shorthold dev token --subject auditor
      shorthold dev token --subject x --claim kubernetes.io/namespace=agents --claim-json 'groups=["billing"]'
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    import json

    from controlplane.dev.issuer import mint, nested
    from controlplane.issuers.trust.options import MAX_LIFETIME
    from controlplane.model.duration import parse_duration
    from controlplane.world import RandomIds, SystemClock

    del name  # there is only one, and click has checked it
    pairs: dict[str, JsonValue] = {}
    try:
        for text in claims:
            key, value = _pair(text)
            pairs[key] = value
        for text in json_claims:
            key, value = _pair(text)
            pairs[key] = json.loads(value)
        span = parse_duration(lifetime)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not subject.strip():
        raise click.ClickException("--subject is empty: a token is about somebody")
    if not timedelta(0) < span <= MAX_LIFETIME:
        raise click.ClickException(f"--lifetime {lifetime}: the control plane believes no token of over an hour")
    issuer = _stack().issuer
    url = issuer.url  # before its key: it says where nothing was ever started
    signed = mint(
        issuer.key,
        url,
        subject,
        now=SystemClock().now(),
        ids=RandomIds(),
        claims=nested(pairs),
        audience=audience,
        lifetime=span,
    )
    click.echo(signed.reveal())  # what this command is for


@dev.command()
@click.option("--subject", required=True, help="Whose session is over: `sub`.")
def signal(subject: str) -> None:
    """As the development issuer, tell the control plane that a subject's session is revoked (OpenID CAEP).

    \b
    Example:
      shorthold dev signal --subject repo:acme/refund-agent:ref:refs/heads/main
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.dev.issuer import push, session_revoked
    from controlplane.world import RandomIds, SystemClock

    stack = _stack()
    url = stack.issuer.url  # before its key: it says where nothing was ever started
    signed = session_revoked(stack.issuer.key, url, subject, now=SystemClock().now(), ids=RandomIds())
    push(stack.api, signed)
    click.echo(f"The control plane was told that the session of {subject} is over.")


def _typed(word: str) -> bool:
    try:
        return click.prompt(f"Type {word} to go on", err=True, default="", show_default=False) == word
    except click.Abort:  # nobody is there to type
        return False


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"a claim is written name=value, not {text!r}")
    return name, value


def _stack() -> "Stack":
    from controlplane.dev.stack import Stack

    return Stack(project=Path.cwd(), say=say)
