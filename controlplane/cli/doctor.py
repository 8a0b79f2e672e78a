"""`shorthold doctor`: is everything all right, and what to do if not."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from controlplane.cli.output import output_option, say, show

if TYPE_CHECKING:
    from controlplane.grants.restore import Difference
    from controlplane.model.canonical import JsonValue
    from controlplane.settings import Settings
    from controlplane.wiring.plane import ControlPlane

_COLORS = ("green", "yellow", "red")


@click.group(invoke_without_command=True)
@output_option
@click.pass_context
def doctor(ctx: click.Context, output: str) -> None:
    """Look at everything a control plane needs, with its own settings, and say what to do about what is wrong.

    Nothing is changed. Exit status: 0 all is well, 1 it works but somebody should look, 2 something is broken.

    \b
    Examples:
      shorthold doctor
      shorthold doctor -o json
      shorthold doctor restore
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    if ctx.invoked_subcommand is not None:
        return
    from controlplane.doctor.checks import Doctor
    from controlplane.doctor.finding import Grade, examine

    with _plane() as (settings, plane):
        found = list(examine(Doctor(settings=settings, plane=plane, clock=plane.clock).checks))
    if output == "table":
        for finding in found:
            click.secho(f"{finding.grade.name.lower():<7}", fg=_COLORS[finding.grade], nl=False)
            click.echo(f" {finding.check}: {finding.detail}")
            if finding.do:
                click.echo(f"        What to do: {finding.do}")
    else:
        rows: list[JsonValue] = [
            {"check": one.check, "grade": one.grade.name.lower(), "detail": one.detail, "do": one.do} for one in found
        ]
        show(rows, output)
    worst = max((finding.grade for finding in found), default=Grade.SOUND)
    ctx.exit(int(worst))


@doctor.command()
@click.option("--adopt", "decided", flag_value="adopt", help="Take living task tokens over as grants.")
@click.option("--end", "decided", flag_value="end", help="Let everything end that the store does not know.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def restore(decided: str | None, yes: bool, output: str) -> None:
    """Say what a restored store and Vault do not agree on and, with --adopt or --end, settle it.

    A store that was restored from a backup, or lost, does not know the grants made since: nothing is granted, and
    nothing unknown is ended, until somebody decides here. A Vault that was restored from a snapshot needs no decision:
    what came back with it is ended, and grants that it forgot end as `lost`.

    \b
    Examples:
      shorthold doctor restore
      shorthold doctor restore --adopt
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    with _plane() as (_, plane):
        found = plane.restore.difference()
        show(_told(found), output, columns=("what", "grant", "entitlement", "subject", "task", "ends_in"))
        behind = found.compared.behind
        say(f"{behind}." if behind else "The store is as far as Vault remembers it: nothing has to be decided.")
        if behind is None:
            return
        if decided is None:
            say("Nothing was changed. --adopt takes over what lives; --end ends what the store does not know.")
            sys.exit(1)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("nobody can be asked here: give --yes")
            click.confirm(
                f"Go on with this store, and {decided} {len(found.unknown)} task tokens?", abort=True, err=True
            )
        if decided == "adopt":
            say(f"Adopted {plane.restore.adopt(found)} grants. Grants are made again.")
        else:
            plane.restore.end(found)
            say("The control plane ends what the store does not know. Grants are made again.")


def _told(found: "Difference") -> "list[JsonValue]":
    unknown: list[JsonValue] = [
        {
            "what": "unknown token",
            **{name: token.metadata.get(name, "") for name in ("grant", "entitlement", "subject", "task")},
            "ends_in": f"{int(token.ttl.total_seconds())}s",
        }
        for token in found.unknown
    ]
    forgotten: list[JsonValue] = [
        {
            "what": "forgotten by Vault",
            "grant": grant.id,
            "entitlement": grant.entitlement,
            "subject": grant.subject,
            "task": grant.task,
            "ends_in": "",
        }
        for grant in found.forgotten
    ]
    return unknown + forgotten


@contextmanager
def _plane() -> "Generator[tuple[Settings, ControlPlane]]":
    from controlplane.http.log import configure
    from controlplane.settings import load
    from controlplane.wiring.plane import wire

    configure()
    settings = load()
    plane = wire(settings)
    try:
        yield settings, plane
    finally:
        plane.close()
