"""`shorthold incident prove`: ask Vault and the targets again, now, and say what is gone."""

import sys
from typing import Any, Final

import click

from controlplane.cli.asking import GRANT_ID, client, told
from controlplane.cli.output import output_option, say, show
from controlplane.cli.statuses import RESIDUAL

_FACTS: Final = ("found", "what", "name", "place", "evidence", "at")
_STRAYS: Final = ("kind", "name", "place", "grant", "detail")
_SAID: Final = {"gone": "gone", "alive": "ALIVE", "cannot-be-asked": "CANNOT BE ASKED"}


@click.command()
@click.argument("incident", required=False)
@click.option("--grant", type=GRANT_ID, default=None, help="One grant.")
@click.option("--subject", default=None, help="Every grant of this subject.")
@click.option("--principal", metavar="NAME", default=None, help="A user name or serial that stands in a target's log.")
@click.option("--strays/--no-strays", default=True, show_default=True, help="Look for what should not exist, too.")
@output_option
def prove(  # noqa: PLR0917 # click passes each option by name
    incident: str | None, grant: str | None, subject: str | None, principal: str | None, strays: bool, output: str
) -> None:
    """Ask Vault and the targets again, now, whatever the store believes; nothing is changed by it.

    About INCIDENT, the name that its cuts were ordered under or the id of one, or about a grant, a subject or a name.
    Also told: tokens, leases and users under our names that no open grant covers. Exit status 0 only if everything
    that should be gone is proved gone, 5 otherwise.

    \b
    Examples:
      shorthold incident prove INC-7
      shorthold incident prove --principal v-sh-orders-read-1a2b3c4d-or-x7Kq...
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    named = {"incident": incident, "grant": grant, "subject": subject, "principal": principal}
    match [(about, name) for about, name in named.items() if name is not None]:
        case [(about, name)]:
            pass
        case _:
            raise click.UsageError("say one of INCIDENT, --grant, --subject and --principal")
    with client() as door:
        answers = [told(lambda: door.prove(about, name, strays=strays))]
        while (before := answers[-1]["next"]) is not None:
            answers.append(told(lambda before=before: door.prove(about, name, strays=False, before=before)))
    whole = _whole(answers)
    if output != "table":
        show(whole, output)
    else:
        _print(whole)
    _leave(whole)


def _whole(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """One answer of several: everything of it is proved where all of each was."""
    grants = [grant for answer in answers for grant in answer["grants"]]
    return {**answers[0], "proved": all(answer["proved"] for answer in answers), "grants": grants, "next": None}


def _print(whole: dict[str, Any]) -> None:
    facts = [*(fact for grant in whole["grants"] for fact in grant["facts"]), *whole["names"]]
    show([{**fact, "found": _found(fact)} for fact in facts], "table", columns=_FACTS)
    if whole["strays"]:
        click.echo("\nshould not exist:")
        show(whole["strays"], "table", columns=_STRAYS)
    for place in whole["unasked"]:
        say(f"NOT ASKED: {place}")


def _found(fact: dict[str, Any]) -> str:
    found = _SAID[fact["found"]]
    return found if fact["due"] or fact["found"] == "gone" else f"{found.lower()}, in use"


def _leave(whole: dict[str, Any]) -> None:
    facts = [*(fact for grant in whole["grants"] for fact in grant["facts"]), *whole["names"]]
    due = [fact for fact in facts if fact["due"]]
    gone = sum(fact["found"] == "gone" for fact in due)
    in_use = f", {len(facts) - len(due)} in use" if len(due) < len(facts) else ""
    looked = "nobody looked for strays" if whole["strays"] is None else f"{len(whole['strays'])} strays"
    say(f"{len(whole['grants'])} grants: {gone} of {len(due)} that should be gone are{in_use}; {looked}.")
    if whole["proved"]:
        say("Everything that should be gone is proved gone, by Vault and by the targets themselves.")
        return
    say("NOT everything that should be gone is proved gone.")
    sys.exit(RESIDUAL)
