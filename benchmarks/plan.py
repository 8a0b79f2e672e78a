"""`python -m benchmarks.plan`: what a plan of many entitlements costs, cold, and how often it asks Vault."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks.decide import ENTITLEMENT
from benchmarks.grant import interrupted, stack_of_its_own
from benchmarks.machine import machine, versions
from controlplane.dev.stack import LAYOUT
from controlplane.engines import engines
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ControlPlaneError
from controlplane.sync.apply import ApplySync
from controlplane.sync.plan import PlanSync
from controlplane.sync.review import review
from controlplane.vault.client import VaultClient
from controlplane.vault.roles import VaultRoles
from controlplane.world import SystemClock

_LAYOUT: Final = replace(LAYOUT, prefix="bp")
"""Names of its own: what the stack has synced stays."""


@click.command()
@click.option("--entitlements", type=click.IntRange(1, 10_000), default=1_000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(entitlements: int, as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Apply so many entitlements, and time `shorthold sync plan` in a process of its own. Not a test: no bounds.

    The plan reviews and compiles every file, and reads every object of ours: names tell content, but only a look tells
    whether somebody has edited it.
    """
    signal.signal(signal.SIGTERM, interrupted)
    talk = Console(stderr=True, highlight=False)
    try:
        with stack_of_its_own(talk) as stack, tempfile.TemporaryDirectory(prefix="shorthold-bench-") as name:
            directory = Path(name)
            for number in range(entitlements):
                (directory / f"orders-{number}.yaml").write_text(ENTITLEMENT.format(number=number))
            client = stack.openbao.operator_client()
            told = {**_measured(client, directory), "machine": machine(), "versions": versions(stack)}
            told |= _cold(client, stack.openbao.addr, directory)
            client.close()
    except ControlPlaneError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        click.echo(f"{name:<16} {value if isinstance(value, int | float) else json.dumps(value)}")


def _measured(client: VaultClient, directory: Path) -> dict[str, JsonValue]:
    """Apply them once, and count what the next plan asks."""
    calls: list[str] = []
    begun = time.monotonic()
    found = review(directory, _LAYOUT, engines(), today=SystemClock().now().date()).whole()
    reviewed = time.monotonic() - begun
    roles = VaultRoles(_LAYOUT, client)
    plan = PlanSync(roles=roles, layout=_LAYOUT)
    shown = plan(found)
    begun = time.monotonic()
    ApplySync(roles=roles, plan=plan)(found, shown)
    applied = time.monotonic() - begun

    def observed(path: str, status: int | None, seconds: float) -> None:
        del status, seconds
        calls.append(path)

    client.transport.observe = observed
    if not plan(found).empty:
        raise click.ClickException("what was applied does not stand")
    return {
        "entitlements": len(found),
        "objects": sum(len(one.objects) for one in found),
        "calls of a plan": len(calls),
        "review, s": round(reviewed, 2),
        "apply, s": round(applied, 2),
    }


def _cold(client: VaultClient, addr: str, directory: Path) -> dict[str, JsonValue]:
    if client.token is None:
        raise click.ClickException("there is no token")
    environment = {
        "PATH": os.environ["PATH"],  # the child's
        "BAO_ADDR": addr,
        "BAO_TOKEN": client.token().reveal(),
        "SHORTHOLD_VAULT__PREFIX": _LAYOUT.prefix,
    }
    begun, used = time.monotonic(), os.times()
    command = [sys.executable, "-m", "controlplane", "sync", "plan", "--roles", str(directory), "--detailed-exitcode"]
    subprocess.run(command, env=environment, cwd=directory, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - used.children_user - used.children_system
    return {"cold plan, s": round(time.monotonic() - begun, 2), "its CPU, s": round(cpu, 2)}


if __name__ == "__main__":
    main()
