"""`shorthold grant find`: the least that one can ask for and have what one needs."""

import shlex
import sys
from typing import Any

import click

from controlplane.cli.asking import client, told
from controlplane.cli.output import output_option, say, show

NOTHING = 3
"""Exit status: nothing that the caller may ask for covers it, or not all of it."""


@click.command()
@click.argument("needs", nargs=-1, required=True)
@click.option("--intent", default=None, help="Only what has this intent.")
@output_option
def find(needs: tuple[str, ...], intent: str | None, output: str) -> None:
    """Find the narrowest entitlements that cover NEEDS: what was refused, or is to be done.

    Only what you are eligible for is looked at. Exit status 3 where something is covered by none of it.

    \b
    Examples:
      shorthold grant find "update billing.invoices"
      shorthold grant find "select (id, name) sales.customers" payments/gateway
      shorthold grant find "permission denied for table invoices"
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    with client() as api:
        answer = told(lambda: api.find(needs, intent=intent))
    found: list[dict[str, Any]] = answer["found"]
    show(answer if output != "table" else [_row(one) for one in found], output, columns=_COLUMNS)
    for one in found:
        ask = one["ask"]
        words = ("shorthold", "grant", "request", ask["entitlement"], "--task", "TASK", "--intent", ask["intent"])
        say(f"Ask: {shlex.join(words)}")
    for need in answer["missing"]:
        say(f"Nothing that you may ask for covers: {need}")
    if answer["missing"]:
        sys.exit(NOTHING)


_COLUMNS = ("entitlement", "covers", "opens", "risk", "ttl", "approval", "when")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    access: dict[str, Any] = one["access"]
    approval: dict[str, Any] | None = access["approval"]
    return {
        "entitlement": access["entitlement"],
        "covers": ", ".join(one["covers"]),
        "opens": "; ".join(access["opens"]),
        "risk": access["risk"],
        "ttl": access["ttl"]["max"],
        "approval": "nobody" if approval is None else approval["says"],
        "when": access["when"]["says"],
    }
