"""`shorthold task`: show a task of one's own, and finish it with all that was granted for it."""

import sys
from typing import Any

import click

from controlplane.cli.asking import client, told
from controlplane.cli.output import output_option, say, show
from controlplane.cli.statuses import RESIDUAL

_COLUMNS = ("id", "state", "entitlement", "task", "why", "revoked_at", "verified")


@click.group()
def task() -> None:
    """Show a task of yours, and finish it with all that was granted for it.

    A task begins with its first grant: `shorthold grant request … --task T-1`, or `--task T-1/a --parent T-1` for a
    part of it.

    \b
    Examples:
      shorthold task show T-1
      shorthold task finish T-1 --wait 10s
      shorthold task finish T-1 --outcome failed
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


@task.command(name="show")
@click.argument("name", metavar="TASK")
@output_option
def show_(name: str, output: str) -> None:
    """Show TASK, the tasks that are parts of it, and its newest grants."""
    with client() as api:
        answer = told(lambda: api.task(name))
    _print(answer, output)
    if output == "table":
        shown: dict[str, Any] = answer["task"]
        say(_said(shown))
        for part in answer["parts"]:
            say(f"  part: {part['task']}, {_ended(part)}")


@task.command()
@click.argument("name", metavar="TASK")
@click.option("--outcome", type=click.Choice(["completed", "failed"]), default="completed", show_default=True)
@click.option("--wait", default=None, help="Wait so long for the proofs, such as 10s.")
@output_option
def finish(name: str, outcome: str, wait: str | None, output: str) -> None:
    """End TASK for good, with every grant of it and of its parts.

    Without --wait it returns as soon as the end is on disk. Exit status 5: not everything was verified gone in time.
    """
    with client() as api:
        answer = told(lambda: api.finish_task(name, outcome=outcome, wait=wait))
    _print(answer, output)
    grants: list[dict[str, Any]] = answer["grants"]
    say(_said(answer["task"]))
    left = [grant for grant in grants if not _gone(grant)]
    if not grants:
        say("Nothing of it was left to end.")
    elif not left:
        say(f"{len(grants)} of {len(grants)} ended, each verified gone or never made.")
    elif wait:
        say(f"{len(left)} of {len(grants)} not verified gone yet; the worker goes on. Look with `shorthold task show`.")
        sys.exit(RESIDUAL)


def _print(answer: dict[str, Any], output: str) -> None:
    if output != "table":
        show(answer, output)
    elif answer["grants"]:
        show([{**grant, "verified": _proof(grant)} for grant in answer["grants"]], output, columns=_COLUMNS)


def _proof(grant: dict[str, Any]) -> bool | None:
    receipt: dict[str, Any] = grant["receipt"] or {}
    return receipt.get("verified")


def _gone(grant: dict[str, Any]) -> bool:
    """Whether nothing was ever made for it, or a receipt says that all of it is gone."""
    return grant["state"] in {"lapsed", "denied"} or (grant["state"] == "revoked" and bool(_proof(grant)))


def _said(told: dict[str, Any]) -> str:
    part = f", a part of {told['parent']}" if told["parent"] else ""
    return f"Task {told['task']}{part}: {_ended(told)}."


def _ended(told: dict[str, Any]) -> str:
    return f"{told['why']} at {told['finished_at']}" if told["finished_at"] else f"open since {told['begun_at']}"
