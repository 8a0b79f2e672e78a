"""`shorthold incident preview / cut / watch / cuts`: see what would end, end it, and see that it has."""

import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Never

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from typing_extensions import override

from controlplane.cli.asking import client, told
from controlplane.cli.direct import cut_directly
from controlplane.cli.output import cell, output_option, say, show
from controlplane.cli.statuses import RESIDUAL
from controlplane.sdk.client import AnsweredError, Shorthold, UnreachableError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


_BETWEEN = 0.5
_PATIENCE = 20.0
"""Seconds between two looks, and so long what resists may resist without anything else changing."""
_NAMED = 10
"""Grants that are named of one role."""
_SOFT = (
    "What to do: `shorthold sync apply` writes our statements back, and Vault ends older logins by them, too. "
    "A session that stays open counts as not gone: its grant is residual until somebody ends it at the target."
)
_CUTS = ("id", "incident", "selection", "subject", "ordered_at", "ended_at")
_LEFT = ("grant", "subject", "entitlement", "state", "why", "todo")


class SelectionType(click.ParamType[str]):
    """A selection; the shell completes its keys from the selectors that there are."""

    name = "selection"

    @override
    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from controlplane.selectors import selectors  # no other command needs them here

        done, comma, last = incomplete.rpartition(",")
        found = [selector for selector in selectors().values() if selector.word.startswith(last)]
        return [CompletionItem(f"{done}{comma}{one.word}{'.' if one.named else ''}", help=one.about) for one in found]


selection_option = click.option(
    "-l", "--selection", type=SelectionType(), default=None, help="What, such as subject=S, label.team=T, age<2h."
)
all_option = click.option("--all", "everything", is_flag=True, help="Everything: nothing less is meant.")


def selected(selection: str | None, *, everything: bool) -> str:
    """What `-l` and `--all` say together. Raises: click.UsageError: nothing."""
    if selection is None and not everything:
        raise click.UsageError("say what with -l, or --all for everything")
    return selection or "all"


harden_option = click.option(
    "--harden", is_flag=True, help="Also look in Vault whether open sessions would outlive it, and say what to do."
)


@click.command()
@selection_option
@all_option
@harden_option
@output_option
def preview(selection: str | None, everything: bool, harden: bool, output: str) -> None:
    """Show what a cut would end, and what its freeze would refuse; nothing is changed. Exit status 1: nothing would."""
    with client() as door:
        seen = told(lambda: door.preview_cut(selected(selection, everything=everything), harden=harden))
    if output != "table":
        show(seen, output)
    elif seen["digest"]:
        _print(seen)
        _tell_soft(seen)
    if not seen["digest"]:
        _nothing(seen)
    say(f"To end all of it: shorthold incident cut --digest {seen['digest']} --incident … --reason …")


@click.command()
@selection_option
@all_option
@click.option("--digest", default=None, help="That of a preview: then nothing is asked.")
@click.option("--count", type=int, default=None, help="How many grants, as typed back: cut if there are just so many.")
@click.option("--incident", default=None, help="Your own name for the incident, such as INC-7.")
@click.option("--reason", default=None, help="Why, for the audit log.")
@click.option("--freeze/--no-freeze", default=True, show_default=True, help="Refuse new grants of it from now on, too.")
@click.option("--message", default=None, help="What those are told whom the freeze refuses.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is known of each grant.")
@harden_option
@click.option("--direct", is_flag=True, help="Without a control plane: with a responder's Vault token alone.")
@output_option
@click.pass_context
def cut(  # noqa: PLR0917 # click passes each option by name
    ctx: click.Context,
    selection: str | None,
    everything: bool,
    digest: str | None,
    count: int | None,
    incident: str | None,
    reason: str | None,
    freeze: bool,
    message: str | None,
    wait: bool,
    harden: bool,
    direct: bool,
    output: str,
) -> None:
    """End everything that is selected, and prove it. It goes on whatever dies, also this command.

    By the digest of a preview, or with -l: then it is previewed now, and cut once you have typed back how many grants
    there are. Exit status 0 only if every one is verified gone, 5 otherwise.

    With --direct nothing is asked of the control plane, which may be dead: BAO_TOKEN or VAULT_TOKEN is a responder's,
    -l selects by what Vault's tokens tell, and `verified` means gone from Vault (docs/runbook.md).
    """
    if direct:
        _refuse_with_direct(ctx)
        wanted = selected(selection, everything=everything)
        cut_directly(wanted, everything=everything, count=count, incident=incident, reason=reason, output=output)
        return
    if incident is None or reason is None:
        raise click.UsageError("give the --incident and the --reason")
    if harden and digest is not None:
        raise click.UsageError("--harden is a preview's matter: `shorthold incident preview --harden`, or cut with -l")
    with client() as door:
        if digest is None:
            digest = _agreed(door, selected(selection, everything=everything), count, harden=harden)
        asked = {"digest": digest, "incident": incident, "reason": reason, "message": message}
        ordered = told(lambda: door.cut(asked, freeze=freeze, everything=everything))
        made: dict[str, Any] = ordered["cut"]
        since: dict[str, Any] = ordered["changed"]
        say(f"{made['id']}: {since['new']} new since the preview, which are cut too; {since['ended']} have ended.")
        if not ordered["settled"]:
            say("It is frozen, but a replica hangs amid a decision that may have been made before. Look for it.")
        if not wait:
            show({"id": made["id"]} if output == "table" else ordered, output)
            return
        _finish(_followed(door, made["id"]), output)


@click.command()
@click.argument("id")
@output_option
def watch(id: str, output: str) -> None:
    """See how far a cut has come, until it is over; exit status as of `cut`."""
    with client() as door:
        _finish(_followed(door, id), output)


@click.command()
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@output_option
def cuts(running: bool, output: str) -> None:
    """List cuts, newest first."""
    with client() as door:
        answer = told(lambda: door.cuts(running=running))
    show(answer["cuts"], output, columns=_CUTS)


def _refuse_with_direct(ctx: click.Context) -> None:
    for name in ("digest", "freeze", "harden", "message", "wait"):
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--direct freezes nothing, knows no preview, and waits: leave out --{name}")


def _agreed(door: Shorthold, selection: str, count: int | None, *, harden: bool) -> str:
    """The digest of a preview to which somebody has typed back how many grants it is."""
    seen = told(lambda: door.preview_cut(selection, harden=harden))
    if not seen["digest"]:
        _nothing(seen)
    _tell_soft(seen)
    if count is None:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked: give the --digest of a preview, or the --count")
        _print(seen, err=True)
        count = click.prompt("How many grants are to end?", type=int, err=True)
    if count != seen["count"]:
        raise click.ClickException(f"there are {seen['count']} grants, not {count}; nothing was cut")
    return str(seen["digest"])


def _nothing(seen: dict[str, Any]) -> Never:
    say(f"{seen['selection']} selects nothing of {seen['of']} grants that have not ended.")
    sys.exit(1)


def _print(seen: dict[str, Any], *, err: bool = False) -> None:
    """A preview, for a person."""

    def line(text: str = "") -> None:
        click.echo(text, err=err)

    def part(title: str, lines: list[str]) -> None:
        for number, text in enumerate(lines or ["none"]):
            line(f"{title if number == 0 else '':<11}{cell(text)}")

    line(f"{seen['count']} of {seen['of']} grants that have not ended: {cell(seen['selection'])}")
    part("agents", [f"{one['grants']:>6}  {one['subject']} ({one['issuer']})" for one in seen["agents"]])
    owned = [f"{one['grants']:>6}  {one['entitlement']}, of {one['owner'] or 'nobody'}" for one in seen["entitlements"]]
    part("grants of", owned)
    part("states", [f"{one['grants']:>6}  {one['state']}" for one in seen["states"]])
    part("leases", [_opened(one) for one in seen["opened"]])
    part("breaks", [f"{one['grants']:>6}  task {one['task']} of {one['subject']}" for one in seen["tasks"]])
    if seen["unfreezable"]:
        part("freeze", [f"impossible by {', '.join(seen['unfreezable'])}: cut with --no-freeze"])
    else:
        part(
            "freeze", [one["entitlement"] + (f" where {one['when']}" if one["when"] else "") for one in seen["refuses"]]
        )
    if seen["everything"]:
        line("This is everything: a cut needs --all.")


def _tell_soft(seen: dict[str, Any]) -> None:
    """Whose open sessions may outlive the cut, and what to do: said aside, for the cut goes on either way."""
    if seen["soft"] is None:
        return
    for one in seen["soft"]:
        sessions = (
            f"{one['sessions']} open sessions" if one["sessions"] is not None else "nobody knows how many sessions"
        )
        say(f"SOFT: {len(one['grants'])} grants at {one['path']}, {sessions}: {one['why']}.")
        say(f"      {', '.join(one['grants'][:_NAMED])}{' …' if len(one['grants']) > _NAMED else ''}")
    if seen["soft"]:
        say(_SOFT)
    else:
        say("Hard: every role ends the open sessions of its logins, too.")


def _opened(one: dict[str, Any]) -> str:
    recall = {
        "provable": "provable at the target",
        "recallable": "Vault takes it back, the target cannot be asked",
        "expiring": "CANNOT be recalled: it runs out",
        "not-recallable": "CANNOT be recalled: change it at the target",
    }.get(one["revocability"] or "", "nobody knows whether it can be recalled")
    sessions = f"{one['sessions']} open sessions" if one["sessions"] is not None else one["unknown"]
    return f"{one['leases']:>6}  {one['engine']} at {one['target']}: {recall}; {sessions}"


def _followed(door: Shorthold, id: str) -> dict[str, Any]:
    """The cut when it is over, or when only what resists is left and nothing has changed for a while."""
    seen = told(lambda: door.show_cut(id))
    changed, before = time.monotonic(), None
    with _bar() as bar:
        row: TaskID = bar.add_task("", total=None, said="")
        while not _over(seen) and time.monotonic() - changed < _PATIENCE:
            if seen["progress"] != before:
                before, changed = seen["progress"], time.monotonic()
                _draw(bar, row, seen["progress"])
            if seen["progress"]["waiting"] or seen["progress"]["ending"]:
                changed = time.monotonic()  # not resisting yet, only slow
            time.sleep(_BETWEEN)
            if (now := _looked(door, id)) is None:
                bar.update(row, said="the control plane does not answer; the cut goes on as soon as one runs")
                changed = time.monotonic()
            seen = now or seen
        _draw(bar, row, seen["progress"])
    return seen


def _looked(door: Shorthold, id: str) -> dict[str, Any] | None:
    """The cut; None where nobody can say for now."""
    try:
        return door.show_cut(id)
    except UnreachableError:
        return None
    except AnsweredError as error:
        if error.http_status == HTTPStatus.TOO_MANY_REQUESTS or error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        return told(lambda: door.show_cut(id))


def _over(seen: dict[str, Any]) -> bool:
    return seen["cut"]["ended_at"] is not None


def _bar() -> "Progress":
    from rich.console import Console  # only here
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _draw(bar: "Progress", row: "TaskID", counts: dict[str, Any]) -> None:
    gone = counts["verified"] + counts["unverifiable"] + counts["withdrawn"]
    bar.update(row, completed=gone, total=counts["total"])
    speed = bar.tasks[0].speed
    rate = f"{speed:.0f}/s " if speed else ""
    resist = f"{counts['residual']} resist" if counts["residual"] else ""
    bar.update(row, said=f"{rate}{resist}")


def _finish(seen: dict[str, Any], output: str) -> None:
    """Print what has become of it, and leave with the status that says so."""
    counts: dict[str, Any] = seen["progress"]
    if output != "table":
        show(seen, output)
    else:
        show({"id": seen["cut"]["id"], **{name: str(count) for name, count in counts.items() if count}}, output)
        for kind in ("residual", "unverifiable"):
            if seen[kind]:
                click.echo(f"\n{kind}:")
                show(seen[kind], output, columns=_LEFT)
    if counts["verified"] + counts["withdrawn"] == counts["total"] and _over(seen):
        say(f"Verified gone: all {counts['total']}.")
        return
    say("NOT everything is verified gone; what resists is tried on. `shorthold incident watch` looks again.")
    sys.exit(RESIDUAL)
