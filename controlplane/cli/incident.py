"""`shorthold incident`: preview, cut and drill; freeze, thaw, and list freezes."""

import sys
from typing import Any

import click

from controlplane.cli import cutting, proving, reporting
from controlplane.cli.asking import FREEZE_ID, client, told
from controlplane.cli.drill import drill
from controlplane.cli.output import output_option, say, show
from controlplane.cli.statuses import PENDING, RESIDUAL

_COLUMNS = ("id", "selection", "message", "reason", "subject", "created_at", "expires_at", "thawed_at")


@click.group()
def incident() -> None:
    """See what is granted, end it, prove it; freeze what must not be granted for now, and thaw it.

    For responders: the settings' `access` says who is one. A selection is written as for kubectl: key=value,
    key!=value, key in (a, b), key notin (a, b), key, !key; a comma means and; the word all alone selects everything.
    docs/incidents.md lists the keys.

    \b
    Examples:
      shorthold incident preview -l subject=repo:acme/refund-agent:ref:refs/heads/main
      shorthold incident cut -l label.team=billing,age<2h --no-freeze --incident INC-7 --reason "leaked key"
      shorthold incident freeze -l label.team=billing --message "Incident 7" --reason "leaked key" --expires 2h
      shorthold incident freeze -l all --message "Stop" --reason "we do not know yet"
      shorthold incident thaw fz_... --reason "key replaced"
      shorthold incident prove INC-7
      shorthold incident report INC-7 -o INC-7.html
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


for command in (
    *(cutting.preview, cutting.cut, cutting.watch, cutting.cuts, drill),
    *(proving.prove, reporting.report, reporting.verify),
):
    incident.add_command(command)


@incident.command()
@cutting.selection_option
@cutting.all_option
@click.option("--message", required=True, help="What those are told whom it refuses.")
@click.option("--reason", required=True, help="Why, for the audit log.")
@click.option("--expires", default=None, help="For how long, such as 2h; until it is thawed otherwise.")
@output_option
def freeze(  # noqa: PLR0917 # click passes each option by name
    selection: str | None, everything: bool, message: str, reason: str, expires: str | None, output: str
) -> None:
    """Refuse every new grant of what is selected, on every replica, from before this returns.

    What was granted before goes on, and can be finished. Exit status 5: frozen, but a replica hangs amid a decision.
    """
    if selection is not None and everything:
        raise click.UsageError("--all freezes everything: leave out either it or -l")
    wanted = cutting.selected(selection, everything=everything)
    asked = {"selection": wanted, "message": message, "reason": reason, "expires_in": expires}
    with client() as door:
        answer = told(lambda: door.freeze(asked))
    _print(answer, output)
    if not answer.get("settled"):
        say("It is frozen, but a replica hangs amid a decision that may have been made before. Look for it.")
        sys.exit(RESIDUAL)


@incident.command()
@click.argument("id", type=FREEZE_ID)
@click.option("--reason", required=True, help="Why, for the audit log.")
@output_option
def thaw(id: str, reason: str, output: str) -> None:
    """End a freeze. Where everything is frozen it ends when two different people have said so: exit status 4 until."""
    with client() as door:
        answer = told(lambda: door.thaw(id, reason=reason))
    _print(answer, output)
    made: dict[str, Any] = answer["freeze"]
    if made["thawed_at"] is None and made["thaws"]:
        say("It is frozen still: another responder has to run the same command.")
        sys.exit(PENDING)


@incident.command()
@click.option("--ended", is_flag=True, help="Also those that have expired or were thawed.")
@output_option
def freezes(ended: bool, output: str) -> None:
    """List the freezes that refuse now, newest first."""
    with client() as door:
        answer = told(lambda: door.freezes(ended=ended))
    show(answer["freezes"], output, columns=_COLUMNS)


def _print(answer: dict[str, Any], output: str) -> None:
    if output != "table":
        show(answer, output)
        return
    made: dict[str, Any] = dict(answer["freeze"])
    by = [f"{thaw['subject']}: {thaw['reason']}" for thaw in made.pop("thaws")]
    show({**made, "thawed_by": "; ".join(by) or None}, output)
