"""`shorthold incident cut --direct`: end what is granted with nothing but a Vault token, and see that it is gone."""

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from controlplane.cli.output import cell, say, show
from controlplane.cli.statuses import RESIDUAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.incident.direct import Fate, Found
    from controlplane.model.canonical import JsonValue

_COLUMNS = ("grant", "subject", "entitlement", "task", "why", "todo")


def cut_directly(
    selection: str, *, everything: bool, count: int | None, incident: str | None, reason: str | None, output: str
) -> None:
    """Look, ask for the count, end, look again, and tell; see `incident.direct`."""
    from controlplane.incident.direct import selection_of_tokens
    from controlplane.model.errors import ConfigurationError
    from controlplane.settings import load_vault, server_token
    from controlplane.wiring.errands import direct_cut

    wanted, vault, token = selection_of_tokens(selection), load_vault(), server_token()
    if token is None:
        raise ConfigurationError("a responder's Vault token is needed: set BAO_TOKEN or VAULT_TOKEN")
    if not everything and not wanted.narrows:
        raise click.UsageError(f"{wanted} may select everything that there is: say --all, too, if you mean it")
    with direct_cut(vault, token) as cut:
        found = cut.look(wanted)
        for path, why in found.unseen.items():
            say(f"Nobody knows what hangs there: {path}: {why}")
        if not found.names and not found.unseen:
            where = f"of auth/{vault.auth_mount} and the roles {vault.prefix}-* at {vault.addr}"
            say(f"{wanted} selects nothing {where}.")
            sys.exit(1)
        _agree(found, count)
        fates = cut(wanted, found, lambda gone, of: say(f"{gone} of {of} gone from Vault"))
    residual = [one for one in fates if not one.verified]
    if output == "table":
        _tell(fates)
    else:
        rows: list[JsonValue] = [_row(one) for one in fates]
        ordered = {"selection": str(wanted), "vault": vault.addr, "incident": incident, "reason": reason}
        show({**ordered, "verified": len(fates) - len(residual), "residual": len(residual), "ended": rows}, output)
    if residual or found.unseen:
        say(f"NOT everything is gone: {len(residual)} of {len(fates)} resist. The same command goes on with them.")
        sys.exit(RESIDUAL)
    say(f"Gone from Vault, verified: all {len(fates)}. Unverified at the target, which only a control plane asks:")
    say("`shorthold grant show` tells it when one runs again; docs/runbook.md, how to look there by hand.")


def _agree(found: "Found", count: int | None) -> None:
    """Somebody has typed back how many things are to end, or nothing is done."""
    if count is None:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked: give the --count")
        _preview(found)
        count = click.prompt("How many are to end?", type=int, err=True)
    if count != len(found.names):
        raise click.ClickException(f"there are {len(found.names)}, not {count}; nothing was ended")


def _preview(found: "Found") -> None:
    grants = Counter((token.metadata.get("entitlement"), token.metadata.get("subject")) for token in found.tokens)
    for (entitlement, subject), number in grants.most_common():
        say(f"{number:>6}  {cell(entitlement)} of {cell(subject)}")
    for path, number in Counter(held.path for held in found.strays).most_common():
        say(f"{number:>6}  leases without a living token at {cell(path)}")
    say(f"{len(found.names):>6}  in all")


def _tell(fates: "Sequence[Fate]") -> None:
    for title, some in (
        ("verified", [one for one in fates if one.verified]),
        ("residual", [one for one in fates if not one.verified]),
    ):
        if some:
            click.echo(f"{title}:")
            show([_row(one) for one in some], "table", columns=_COLUMNS)


def _row(one: "Fate") -> "dict[str, JsonValue]":
    return {
        "grant": one.grant or one.name,
        "name": one.name,
        "subject": one.subject,
        "entitlement": one.entitlement,
        "task": one.task,
        "outcome": "verified" if one.verified else "residual",
        "why": one.why,
        "todo": one.todo,
    }
