"""`shorthold incident drill`: issue a credential, lose it, contain it, and say how long it took until it was gone."""

import math
import secrets
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.asking import client, narrowing, parameter_option, told
from controlplane.cli.output import output_option, say, show
from controlplane.cli.statuses import RESIDUAL
from controlplane.sdk.client import AnsweredError, Shorthold, UnreachableError
from controlplane.sdk.identity import Identity, from_command, from_file

if TYPE_CHECKING:
    from controlplane.model.canonical import JsonValue

_BETWEEN = 0.1
_COLUMNS = ("engine", "credentials", "verified", "p50", "p99", "longest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """One run. `seconds` are from the loss until everything was seen verified, None where it was not in time.

    `engines` has a time for each credential, by its engine: until its target said that it is gone.
    """

    entitlement: str
    grant: str
    task: str
    cut: str
    seconds: float | None
    engines: dict[str, list[float | None]] = field(default_factory=dict[str, list[float | None]])
    why: str = ""


@click.command()
@click.argument("entitlements", nargs=-1, required=True)
@click.option("--runs", type=click.IntRange(1, 1000), default=1, show_default=True, help="How often, of each.")
@click.option("--intent", default=None, help="Which of its intents; the first one otherwise.")
@click.option("--token-file", type=click.Path(path_type=Path), default=None, help="The agent's token, read every time.")
@click.option("--token-command", default=None, help="A program that prints the agent's token; run at every call.")
@click.option("--within", default="60s", show_default=True, help="How long a containment may take.")
@parameter_option
@output_option
def drill(  # noqa: PLR0917 # click passes each option by name
    entitlements: tuple[str, ...],
    runs: int,
    intent: str | None,
    token_file: Path | None,
    token_command: str | None,
    within: str,
    parameters: tuple[tuple[str, str], ...],
    output: str,
) -> None:
    """Rehearse the night: ask for ENTITLEMENTS as an agent, lose what comes, contain it as a responder, time it.

    The agent is a workload of yours that is eligible; its token comes from --token-file or --token-command. You are the
    responder. Each run has a task of its own, which nobody else's grant can be of: it is previewed, frozen and cut by
    that task, and thawed again. Exit status 5 if anything is not verified gone in time: then a real one would not be.

    \b
    Examples:
      shorthold incident drill orders-read --runs 20 --token-command "print-token drill-agent"
      shorthold incident drill orders-read billing-cert --token-file agent.token -o json
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    from controlplane.model.duration import parse_duration
    from controlplane.settings import caller

    try:
        patience = parse_duration(within)
    except ValueError as error:
        raise click.UsageError(f"--within {error}") from None
    name = f"drill-{secrets.token_hex(4)}"
    done: list[Drilled] = []
    with Shorthold(caller().addr, _agent(token_file, token_command), timeout=90) as agent, client() as responder:
        wishes = [_wish(agent, each, intent) | narrowing(parameters) for each in entitlements]
        for number in range(runs):
            for place, wish in enumerate(wishes):
                task = f"{name}-{number * len(wishes) + place + 1}"
                done.append(contain(agent, responder, {**wish, "task": task}, incident=name, patience=patience))
                say(_line(done[-1]))
    measured = _measured(done)
    missing = [one for one in done if one.seconds is None]
    if output == "table":
        show(measured, output, columns=_COLUMNS)
    else:
        rows: list[JsonValue] = [asdict(one) for one in done]
        whole = spread([one.seconds for one in done])
        show({"incident": name, "containment": whole, "engines": measured, "runs": rows}, output)
    say(f"What the control plane itself saw: shorthold incident report {name} -o {name}.html")
    if missing:
        say(f"NOT contained: {len(missing)} of {len(done)}. Revocation is broken; the control plane goes on trying.")
        sys.exit(RESIDUAL)
    say(f"Contained and verified gone: all {len(done)}.")


def contain(
    agent: Shorthold, responder: Shorthold, wish: dict[str, Any], *, incident: str, patience: timedelta
) -> Drilled:
    """One run; whatever becomes of it, its grant is ended and its freeze is thawed. Exits where it is refused."""
    granted: dict[str, Any] = told(lambda: agent.request({**wish, "reason": f"incident drill {incident}"}))["grant"]
    selection, made, seconds = f"task={wish['task']}", None, None
    try:
        if granted["state"] != "active":
            raise click.ClickException(f"{wish['entitlement']} waits for people: drill one that needs nobody's yes")
        lost = time.monotonic()  # whoever has the wrapping token has the credential from here on
        seen = told(lambda: responder.preview_cut(selection))
        if seen["count"] != 1:
            raise click.ClickException(f"{selection} selects {seen['count']} grants, not one; nothing was cut")
        asked = {"digest": seen["digest"], "incident": incident, "reason": "a drill", "message": f"This is {incident}."}
        ordered = time.monotonic() - lost
        made = told(lambda: responder.cut(asked))["cut"]
        while seconds is None and time.monotonic() - lost < patience.total_seconds():
            if _looked(responder, made["id"])["progress"]["verified"]:
                seconds = time.monotonic() - lost
            else:
                time.sleep(_BETWEEN)
        return _drilled(wish, told(lambda: agent.show(granted["id"])), made, ordered, seconds)
    finally:
        with suppress(AnsweredError, UnreachableError):
            agent.finish(granted["id"])  # one that ends already goes on ending
        if made is not None and made["freeze"]:
            with suppress(AnsweredError, UnreachableError):
                responder.thaw(made["freeze"], reason=f"{incident} is over")


def _looked(responder: Shorthold, id: str) -> dict[str, Any]:
    return told(lambda: responder.show_cut(id))


def _drilled(
    wish: dict[str, Any], seen: dict[str, Any], made: dict[str, Any], ordered: float, seconds: float | None
) -> Drilled:
    """What the grant's receipt says, or what stands in its way."""
    receipt: dict[str, Any] = seen["grant"]["receipt"] or {"ended": ()}
    gone: dict[str, float] = {}
    for end in receipt["ended"]:
        if end["verified"]:
            since = datetime.fromisoformat(end["at"]) - datetime.fromisoformat(made["ordered_at"])
            gone[end["lease"]] = round(ordered + since.total_seconds(), 3)
    engines: dict[str, list[float | None]] = defaultdict(list)
    for lease in seen["leases"]:
        engines[lease["engine"]].append(gone.get(lease["id"]))
    why = "; ".join(dict.fromkeys(end["evidence"] for end in receipt["ended"] if not end["verified"]))
    return Drilled(
        entitlement=wish["entitlement"],
        grant=seen["grant"]["id"],
        task=wish["task"],
        cut=made["id"],
        seconds=None if seconds is None else round(seconds, 3),
        engines=dict(engines),
        why="" if seconds is not None else seen["grant"]["failing"] or why or "it was not over in time",
    )


def _agent(file: Path | None, command: str | None) -> Identity:
    if (file is None) == (command is None):
        raise click.UsageError("whose credential? Give either --token-file or --token-command")
    if file is not None:
        return from_file(file)
    try:
        return from_command(*shlex.split(command or ""))
    except (TypeError, ValueError):
        raise click.UsageError("--token-command is no command line") from None


def _wish(agent: Shorthold, entitlement: str, intent: str | None) -> dict[str, Any]:
    offered: list[dict[str, Any]] = told(agent.entitlements)["entitlements"]
    found = next((one for one in offered if one["entitlement"] == entitlement), None)
    if found is None:
        raise click.ClickException(f"the agent of this token is not eligible for {entitlement}, or there is none")
    return {"entitlement": entitlement, "intent": intent or found["intents"][0]}


def _line(one: Drilled) -> str:
    told = f"contained in {one.seconds:.2f} s" if one.seconds is not None else f"NOT contained: {one.why}"
    return f"{one.task}: {one.entitlement} {one.grant} {told}"


def _measured(done: Sequence[Drilled]) -> "list[JsonValue]":
    """A line for each engine, and what the whole took."""
    times: dict[str, list[float | None]] = defaultdict(list)
    for one in done:
        for engine, seconds in one.engines.items():
            times[engine] += seconds
    return [{"engine": engine, **spread(seconds)} for engine, seconds in sorted(times.items())]


def spread(times: Sequence[float | None]) -> "dict[str, JsonValue]":
    """Nearest ranks, in seconds, of those that were verified."""
    known = sorted(seconds for seconds in times if seconds is not None)

    def rank(share: float) -> float | None:
        return known[math.ceil(share * len(known)) - 1] if known else None

    return {
        "credentials": len(times),
        "verified": len(known),
        "p50": rank(0.5),
        "p99": rank(0.99),
        "longest": rank(1.0),
    }
