"""`shorthold vault`: set up the server behind the control plane, once, with an operator's token."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controlplane.cli.output import output_option, say, show
from controlplane.model.errors import TokenRefusedError, VaultRefusedError

if TYPE_CHECKING:
    from controlplane.model.canonical import JsonValue
    from controlplane.settings import Settings
    from controlplane.vault.bootstrap import BootstrapItem, Trust
    from controlplane.vault.client import VaultClient


@click.group()
def vault() -> None:
    """Set up mounts, policies and trust in Vault or OpenBao."""


@vault.command()
@click.option("--yes", is_flag=True, help="Do it without asking.")
@output_option
def bootstrap(yes: bool, output: str) -> None:
    """Make mounts, policies and trust as `vault-config/` describes them; say what there is to do first.

    Needs an operator's token in BAO_TOKEN or VAULT_TOKEN, and uses it for nothing else. Signing keys that are not
    there yet are made in the `keys` directory. Repeating it changes nothing.

    \b
    Examples:
      BAO_ADDR=https://bao.acme.example:8200 BAO_TOKEN=$(cat token) shorthold vault bootstrap
      shorthold vault bootstrap --yes -o json
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.settings import load
    from controlplane.vault.bootstrap import bootstrap as set_up

    settings = load()
    client = _operator(settings)
    try:
        layout, trust = settings.vault.layout, _trust(settings)
        with own_token():
            items = set_up(client, layout, trust, apply=False)
        show([_row(item) for item in items], output, columns=("action", "path", "what"))
        undone = [item for item in items if item.action != "none"]
        if not undone:
            say(f"Nothing to do: everything stands at {settings.vault.addr} as it should.")
            return
        if not yes and not _confirmed(f"Write {len(undone)} of these objects to {settings.vault.addr}?"):
            raise click.ClickException("nothing was changed; --yes where nobody can answer")
        with own_token():
            done = [item for item in set_up(client, layout, trust, apply=True) if item.action != "none"]
        say(f"Done: {len(done)} objects written to {settings.vault.addr}.")
    finally:
        client.close()


@vault.command()
@click.option("--key-file", type=click.Path(path_type=Path), default=None, help="The responder's key; that of `keys`.")
def token(key_file: Path | None) -> None:
    """Log in to Vault as the responder and print the token: for an hour it may look up and revoke what is ours.

    For `incident cut --direct`, when the control plane is what is broken. Needs Vault's address and the key alone.

    \b
    Examples:
      export BAO_TOKEN="$(shorthold vault token --key-file responder.pem)"
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.settings import load, load_vault
    from controlplane.wiring.errands import responder_token

    key_file = key_file or load().keys.directory / "responder.pem"
    click.echo(responder_token(load_vault(), key_file).reveal())


@contextmanager
def own_token() -> Generator[None]:
    """Within it, a refusal of a token from the environment is told as one: that token is what to look at first."""
    from controlplane.settings import server_token

    try:
        yield
    except VaultRefusedError as error:
        if server_token() is None:
            raise
        raise TokenRefusedError(error.detail) from None


def _operator(settings: "Settings") -> "VaultClient":
    from controlplane.model.errors import ConfigurationError
    from controlplane.settings import server_token
    from controlplane.vault.client import Server, VaultClient

    token = server_token()
    if token is None:
        raise ConfigurationError("an operator's token is needed: set BAO_TOKEN or VAULT_TOKEN")
    given = settings.vault
    server = Server(
        given.addr,
        namespace=given.namespace,
        cacert=given.cacert,
        client_cert=given.client_cert,
        client_key=given.client_key,
        skip_verify=given.skip_verify,
        timeout=given.timeout,
    )
    return VaultClient(server, lambda: token)


def _trust(settings: "Settings") -> "Trust":
    """The public halves of the keys that the settings name; in the keys' directory where they name none."""
    from controlplane.keys.files import load_or_create
    from controlplane.vault.bootstrap import Trust

    directory, broker, sync = settings.keys.directory, settings.vault.broker, settings.vault.sync
    drift = settings.vault.drift
    files = {
        "task": directory / "task.pem",
        "broker": broker.key_file if broker else directory / "broker.pem",
        "sync": sync.key_file if sync else directory / "sync.pem",
        "responder": directory / "responder.pem",
        "drift": drift.key_file if drift else directory / "drift.pem",
    }
    wished = {"param": settings.vault.param, "rotate": settings.vault.rotate}
    files |= {name: identity.key_file for name, identity in wished.items() if identity is not None}
    return Trust(**{f"{name}_key_pem": load_or_create(file).public_pem for name, file in files.items()})


def _row(item: "BootstrapItem") -> "dict[str, JsonValue]":
    return {"action": item.action, "path": item.path, "what": item.what}


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        return False
