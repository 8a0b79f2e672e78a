"""`shorthold whois`: whose is a name that stands in a target's log."""

import sys
from typing import Any

import click

from controlplane.cli.asking import client, told
from controlplane.cli.output import output_option, say, show
from controlplane.cli.statuses import RESIDUAL


@click.command()
@click.argument("name")
@output_option
def whois(name: str, output: str) -> None:
    """Say whose NAME is: which grant, which agent, for which task, from when to when, who agreed.

    A database user, the serial of a certificate in any spelling, the key id or serial of an SSH certificate, a user of
    RabbitMQ or LDAP, an accessor, lease, display name or role in Vault's log, or the id of a grant.

    For responders and auditors. Exit status: 0 known, 1 not ours, 5 named like ours and no grant knows it.

    \b
    Examples:
      shorthold whois v-sh-orders-read-1a2b3c4d-or-x7Kq...
      shorthold whois 5F:0A:...:9C
      shorthold whois "ID sh-shell-1a2b3c4d-host-9f... (serial 4711)"
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    with client() as door:
        found = told(lambda: door.whois(name))
    if output != "table":
        show(found, output)
    elif found["behind"]:
        for number, one in enumerate(found["behind"]):
            if number:
                click.echo()
            show(_summary(one), output)
    say(f"{found['whose']}: {found['detail']}.")
    match found["whose"]:
        case "not-ours":
            sys.exit(1)
        case "ours-but-unknown":
            say("  What to do: shorthold incident prove --principal says whether it lives; docs/orphans.md ends it.")
            sys.exit(RESIDUAL)
        case _:
            pass


def _summary(one: dict[str, Any]) -> dict[str, Any]:
    grant: dict[str, Any] = one["grant"]
    shown = ("id", "state", "issuer", "subject", "entitlement", "revision", "task", "intent", "reason")
    flat = {name: grant[name] or None for name in shown}
    flat |= {"from": grant["issued_at"] or grant["requested_at"], "to": grant["revoked_at"] or grant["expires_at"]}
    flat |= {"why": grant["why"]}
    flat |= {f"approved by {given['subject']}": given["reason"] or given["at"] for given in one["approvals"]}
    flat |= {f"{lease['engine']} at {lease['target']}": lease["principal"] for lease in one["leases"]}
    return flat
