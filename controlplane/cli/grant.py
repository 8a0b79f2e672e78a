"""`shorthold grant`: request, explain, collect, show, list, renew and finish grants; approve, deny, review others'."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli import approval, finding, keeping, review
from controlplane.cli.asking import GRANT_ID, client, narrowing, parameter_option, print_grant, summary, told
from controlplane.cli.output import FORMATS, output_option, say, show
from controlplane.cli.receipt import verify_receipt
from controlplane.cli.statuses import DENIED, PENDING, RESIDUAL
from controlplane.cli.unwrapping import unwrapped, vault_settings
from controlplane.sdk.client import Shorthold

if TYPE_CHECKING:
    from controlplane.cli.unwrapping import Vault


_WHY = ("decision", "says", "code", "detail")
_OUTCOMES = {
    "allow": "A request would be granted now.",
    "deny": "A request would be denied now.",
    "needs-approval": "A request would wait until people have agreed.",
}
_EXPLAINED = {"allow": 0, "deny": DENIED, "needs-approval": PENDING}
_BETWEEN = 0.5
"""Seconds between two looks at a grant that waits for people."""
_WAITING = frozenset({"pending", "approved"})
_OPENS = frozenset({"wrapping_token", "credentials"})
_COLUMNS = ("id", "state", "entitlement", "task", "expires_at")


@click.group()
def grant() -> None:
    """Request, explain, collect, show, list, renew and finish grants; approve, deny and review those of others.

    Who you are is an OIDC token in SHORTHOLD_TOKEN_FILE (read at every call) or SHORTHOLD_TOKEN; a token that proves
    nobody is exit status 3, as a denial is.

    \b
    Examples:
      shorthold grant request orders-read --task T-1 --intent answer-question --reason "who ordered?"
      shorthold grant renew gr_... --ttl 5m
      shorthold grant finish gr_... --wait 10s
      shorthold grant pending
      shorthold grant approve gr_...
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


for command in (
    *(approval.pending, approval.approve, approval.deny, review.reviews, review.review),
    *(keeping.renew, keeping.heartbeat, verify_receipt, finding.find),
):
    grant.add_command(command)


@grant.command()
@click.argument("entitlement")
@click.option("--task", required=True, help="The id of the task this is for; you choose it.")
@click.option("--parent", default=None, help="The task of yours that it is a part of: it gets no more than that has.")
@click.option("--intent", required=True, help="Which of the entitlement's intents.")
@click.option("--reason", default=None, help="Why, in a sentence, for whoever reads the audit log.")
@click.option("--ttl", default=None, help="How long, such as 5m; the entitlement's default otherwise.")
@parameter_option
@click.option(
    "--idempotency-key", default=None, help="Asking again with the same key makes no second grant; a new one otherwise."
)
@click.option("--wait", is_flag=True, help="Where people have to agree: wait until they have, and collect it.")
@click.option("--unwrap", is_flag=True, help="Open the wrapping token at Vault and print the credentials.")
@output_option
def request(  # noqa: PLR0917 # click passes each option by name
    entitlement: str,
    task: str,
    parent: str | None,
    intent: str,
    reason: str | None,
    ttl: str | None,
    parameters: tuple[tuple[str, str], ...],
    idempotency_key: str | None,
    wait: bool,
    unwrap: bool,
    output: str,
) -> None:
    """Ask for ENTITLEMENT; the answer has a wrapping token that opens once, at Vault, within a minute.

    Exit status 4 while people have to agree: collect it with `shorthold grant collect` once they have.
    """
    asked = {"entitlement": entitlement, "task": task, "intent": intent, "reason": reason, "ttl": ttl, "parent": parent}
    asked |= narrowing(parameters)
    at = vault_settings() if unwrap else None  # what is wrong with the settings is told before anything is made
    with client() as api:
        answer = told(lambda: api.request(asked, key=idempotency_key))
        granted: dict[str, Any] = answer["grant"]
        if wait and granted["state"] in _WAITING:
            say(f"{granted['id']} waits for approval, until {granted['expires_at']} at most.")
            answer = _collected(api, granted["id"], wait=True)
            granted = answer["grant"]
        _print_delivered(api, answer, at, output)
    if granted["state"] in _WAITING:
        for_whom = "for approval" if granted["state"] == "pending" else "to be collected"
        say(f"It waits {for_whom}; nothing has been made yet: `shorthold grant collect {granted['id']} --wait`.")
        sys.exit(PENDING)
    if not answer.keys() & _OPENS:
        say("This key was used before, and what it opened was handed out then. Finish this grant and ask anew.")


@grant.command()
@click.argument("id", type=GRANT_ID)
@click.option("--wait", is_flag=True, help="Wait until people have agreed, as long as the grant does.")
@click.option("--unwrap", is_flag=True, help="Open the wrapping token at Vault and print the credentials.")
@output_option
def collect(id: str, wait: bool, unwrap: bool, output: str) -> None:
    """Get the credential of a grant that was approved, once.

    Everything is decided anew before: a window may have closed, a freeze begun. Exit status 4: people still have to
    agree.
    """
    at = vault_settings() if unwrap else None
    with client() as api:
        _print_delivered(api, _collected(api, id, wait=wait), at, output)


@grant.command()
@click.argument("entitlement")
@click.option("--intent", required=True, help="Which of the entitlement's intents.")
@click.option("--task", default="explain", show_default=True, help="The id of the task this would be for.")
@click.option("--ttl", default=None, help="How long, such as 5m; the entitlement's default otherwise.")
@parameter_option
@output_option
def explain(  # noqa: PLR0917 # click passes each option by name
    entitlement: str,
    intent: str,
    task: str,
    ttl: str | None,
    parameters: tuple[tuple[str, str], ...],
    output: str,
) -> None:
    """Show what would be decided on a request for ENTITLEMENT now, and why; nothing is made.

    Exit status: 0 it would be granted, 3 denied, 4 people have to agree first.
    """
    asked = {"entitlement": entitlement, "task": task, "intent": intent, "ttl": ttl, **narrowing(parameters)}
    with client() as api:
        answer = told(lambda: api.explain(asked))
    show(answer if output != "table" else answer["reasons"], output, columns=_WHY)
    say(_OUTCOMES[answer["decision"]])
    spent = answer["decision"] != "deny" and answer.get("token_spent")
    if spent:
        say("But not with this token, which has asked for a grant before: get a new one from your issuer first.")
    sys.exit(DENIED if spent else _EXPLAINED[answer["decision"]])


@grant.command(name="show")
@click.argument("id", type=GRANT_ID)
@output_option
def show_(id: str, output: str) -> None:
    """Show one grant that you may see, its leases and its receipt."""
    with client() as api:
        answer = told(lambda: api.show(id))
    print_grant(answer, output)


@grant.command(name="list")
@click.option("-o", "--output", type=click.Choice([*FORMATS, "id"]), default="table", show_default=True)
def list_(output: str) -> None:
    """List your newest grants, or with a role everybody's; `-o id` prints nothing but their ids."""
    with client() as api:
        answer = told(api.list)
    if output == "id":
        for granted in answer["grants"]:
            click.echo(granted["id"])
        return
    show(answer["grants"], output, columns=_COLUMNS)


@grant.command()
@click.argument("id", type=GRANT_ID)
@click.option("--outcome", type=click.Choice(["completed", "failed"]), default="completed", show_default=True)
@click.option("--wait", default=None, help="Wait so long for the proof, such as 10s.")
@output_option
def finish(id: str, outcome: str, wait: str | None, output: str) -> None:
    """End a grant. Without --wait it returns as soon as the end is on disk."""
    with client() as api:
        answer = told(lambda: api.finish(id, outcome=outcome, wait=wait))
    print_grant(answer, output)
    ended: dict[str, Any] = answer["grant"]
    if ended["state"] in {"lapsed", "denied"}:
        say(f"Nothing was ever made for this grant, so there is nothing to take back: it is {ended['state']}.")
        return
    receipt: dict[str, Any] = ended["receipt"] or {}
    proved = ended["state"] == "revoked" and receipt.get("verified")
    if wait and not proved:
        say("Not everything is verified gone yet; the worker goes on. Look again with `shorthold grant show`.")
        sys.exit(RESIDUAL)


def _collected(api: Shorthold, id: str, *, wait: bool) -> dict[str, Any]:
    while wait and told(lambda: api.show(id, wait="30s"))["grant"]["state"] == "pending":
        time.sleep(_BETWEEN)  # mostly the other side is what waits, half a minute each time: unless too many do
    return told(lambda: api.collect(id))


def _print_delivered(api: Shorthold, answer: dict[str, Any], at: "Vault | None", output: str) -> None:
    if at is not None and "wrapping_token" in answer:
        answer["credentials"] = unwrapped(api, at, answer["grant"]["id"], answer.pop("wrapping_token"))
    show(answer if output != "table" else summary(answer), output)
