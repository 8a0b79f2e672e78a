"""`shorthold grant`: request, explain, show, list and finish grants."""

import re
import ssl
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from controlplane.cli.output import FORMATS, output_option, say, show
from controlplane.cli.receipt import verify_receipt
from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.sdk.client import AnsweredError, Shorthold

if TYPE_CHECKING:
    from controlplane.settings import VaultSettings

PENDING, RESIDUAL = 4, 5
"""Exit statuses: waiting for approval; something could not be verified gone."""

_WHY = ("decision", "says", "code", "detail")
_OUTCOMES = {
    "allow": "A request would be granted now.",
    "deny": "A request would be denied now.",
    "needs-approval": "A request would wait until people have agreed.",
}
_EXPLAINED = {"allow": 0, "deny": 3, "needs-approval": PENDING}
_COLUMNS = ("id", "state", "entitlement", "task", "expires_at")


class NotUnwrappedError(ControlPlaneError):
    """A grant was made, but its wrapping token could not be opened at Vault: nobody has its credentials."""

    code, exit_status = "not-unwrapped", 2
    hint = (
        "See that BAO_ADDR or vault.addr and its TLS settings are right from here, and ask anew. If Vault says that "
        "the wrapping token is not valid and nobody of yours opened it, tell your incident responder."
    )


class GrantIdType(click.ParamType[str]):
    """The id of a grant, so that a slip of the hand is told before anything is sent."""

    name = "id"

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"gr_[a-z2-7]{24}", value):
            self.fail(f"{value!r} is no grant id: it looks like gr_ and 24 characters", param, ctx)
        return value


@click.group()
def grant() -> None:
    """Request, explain, show, list and finish grants.

    Who you are is an OIDC token in SHORTHOLD_TOKEN_FILE (read at every call) or SHORTHOLD_TOKEN; a token that proves
    nobody is exit status 3, as a denial is.

    \b
    Examples:
      shorthold grant request orders-read --task T-1 --intent answer-question --reason "who ordered?"
      shorthold grant finish gr_... --wait 10s
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


@grant.command()
@click.argument("entitlement")
@click.option("--task", required=True, help="The id of the task this is for; you choose it.")
@click.option("--intent", required=True, help="Which of the entitlement's intents.")
@click.option("--reason", default=None, help="Why, in a sentence, for whoever reads the audit log.")
@click.option("--ttl", default=None, help="How long, such as 5m; the entitlement's default otherwise.")
@click.option("--idempotency-key", default=None, help="Asking again with the same key makes no second grant.")
@click.option("--unwrap", is_flag=True, help="Open the wrapping token at Vault and print the credentials.")
@output_option
def request(  # noqa: PLR0917 # click passes each option by name
    entitlement: str,
    task: str,
    intent: str,
    reason: str | None,
    ttl: str | None,
    idempotency_key: str | None,
    unwrap: bool,
    output: str,
) -> None:
    """Ask for ENTITLEMENT; the answer has a wrapping token that opens once, at Vault, within a minute."""
    asked = {"entitlement": entitlement, "task": task, "intent": intent, "reason": reason, "ttl": ttl}
    at = _vault() if unwrap else None  # what is wrong with the settings is told before anything is made
    with _client() as client:
        answer = _told(lambda: client.request(asked, key=idempotency_key))
        granted: dict[str, Any] = answer["grant"]
        if at is not None and "wrapping_token" in answer:
            answer["credentials"] = _unwrapped(client, at, granted["id"], answer.pop("wrapping_token"))
    delivered = bool(answer.keys() & {"wrapping_token", "credentials"})
    show(answer if output != "table" else _summary(answer), output)
    if granted["state"] == "pending":
        say("It waits for approval; nothing has been made yet.")
        sys.exit(PENDING)
    if not delivered:
        say("This key was used before, and what it opened was handed out then. Finish this grant and ask anew.")


@grant.command()
@click.argument("entitlement")
@click.option("--intent", required=True, help="Which of the entitlement's intents.")
@click.option("--task", default="explain", show_default=True, help="The id of the task this would be for.")
@click.option("--ttl", default=None, help="How long, such as 5m; the entitlement's default otherwise.")
@output_option
def explain(entitlement: str, intent: str, task: str, ttl: str | None, output: str) -> None:
    """Show what would be decided on a request for ENTITLEMENT now, and why; nothing is made.

    Exit status: 0 it would be granted, 3 denied, 4 people have to agree first.
    """
    asked = {"entitlement": entitlement, "task": task, "intent": intent, "ttl": ttl}
    with _client() as client:
        answer = _told(lambda: client.explain(asked))
    show(answer if output != "table" else answer["reasons"], output, columns=_WHY)
    say(_OUTCOMES[answer["decision"]])
    sys.exit(_EXPLAINED[answer["decision"]])


@grant.command(name="show")
@click.argument("id", type=GrantIdType())
@output_option
def show_(id: str, output: str) -> None:
    """Show one grant of yours, its leases and its receipt."""
    with _client() as client:
        answer = _told(lambda: client.show(id))
    _print_grant(answer, output)


@grant.command(name="list")
@click.option("-o", "--output", type=click.Choice([*FORMATS, "id"]), default="table", show_default=True)
def list_(output: str) -> None:
    """List your newest grants; `-o id` prints nothing but their ids."""
    with _client() as client:
        answer = _told(client.list)
    if output == "id":
        for granted in answer["grants"]:
            click.echo(granted["id"])
        return
    show(answer["grants"], output, columns=_COLUMNS)


@grant.command()
@click.argument("id", type=GrantIdType())
@click.option("--outcome", type=click.Choice(["completed", "failed"]), default="completed", show_default=True)
@click.option("--wait", default=None, help="Wait so long for the proof, such as 10s.")
@output_option
def finish(id: str, outcome: str, wait: str | None, output: str) -> None:
    """End a grant. Without --wait it returns as soon as the end is on disk."""
    with _client() as client:
        answer = _told(lambda: client.finish(id, outcome=outcome, wait=wait))
    _print_grant(answer, output)
    ended: dict[str, Any] = answer["grant"]
    if ended["state"] in {"lapsed", "denied"}:
        say(f"Nothing was ever made for this grant, so there is nothing to take back: it is {ended['state']}.")
        return
    receipt: dict[str, Any] = ended["receipt"] or {}
    proved = ended["state"] == "revoked" and receipt.get("verified")
    if wait and not proved:
        say("Not everything is verified gone yet; the worker goes on. Look again with `shorthold grant show`.")
        sys.exit(RESIDUAL)


grant.add_command(verify_receipt)


def _client() -> Shorthold:
    from controlplane.settings import caller

    me = caller()
    return Shorthold(me.addr, lambda: caller().token, timeout=90)


def _vault() -> "tuple[VaultSettings, ssl.SSLContext | None]":
    """Where wrapping tokens are opened, and whom to trust there.

    Raises: ConfigurationError: a certificate or key of the settings cannot be read.
    """
    from controlplane.settings import load

    vault = load().vault
    if not vault.addr.startswith("https:"):
        return vault, None
    try:
        tls = ssl.create_default_context(cafile=vault.cacert)
        if vault.client_cert:
            tls.load_cert_chain(vault.client_cert, vault.client_key)
    except OSError as error:  # an SSLError is one
        raise ConfigurationError(f"vault.cacert, client_cert or client_key: {error.strerror or error}") from None
    if vault.skip_verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return vault, tls


def _unwrapped(
    client: Shorthold, at: "tuple[VaultSettings, ssl.SSLContext | None]", id: str, token: str
) -> dict[str, dict[str, str]]:
    from controlplane.model.secret import Secret

    vault, tls = at
    try:
        opened = client.unwrap(vault.addr, Secret(token), namespace=vault.namespace, tls=tls)
    except ControlPlaneError as error:
        raise NotUnwrappedError(
            f"Vault at {vault.addr} did not open the credentials of {id}: {error.detail}; {_given_up(client, id)}"
        ) from None
    return {scope: {name: value.reveal() for name, value in fields.items()} for scope, fields in opened.items()}


def _given_up(client: Shorthold, id: str) -> str:
    """End a grant that nobody can use any more, and say how that went."""
    try:
        client.finish(id, outcome="failed")
    except ControlPlaneError as error:
        return f"and it could not be finished ({error.detail}): run `shorthold grant finish {id} --outcome failed`"
    return "it was finished as failed"


def _told(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make the call; a refusal is told with its reasons, and its kind is the exit status."""
    try:
        return call()
    except AnsweredError as error:
        click.secho(f"Error [{error.told_code}]: {error.detail}", fg="red", err=True)
        for why in error.problem.get("reasons", ()):
            say(f"  {why.get('decision')}: {why.get('detail')} [{why.get('code')}]")
        if hint := error.problem.get("hint"):
            say(f"  What to do: {hint}")
        sys.exit(error.told_exit_status)


def _summary(answer: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to see of a grant, as one flat table."""
    told: dict[str, Any] = answer["grant"]
    names = ("id", "state", "entitlement", "task", "intent", "expires_at", "why", "revoked_at", "failing")
    flat = {name: told.get(name) for name in names}
    for lease in answer.get("leases", ()):
        flat[f"lease {lease['scope']}"] = lease["principal"]
    receipt: dict[str, Any] = told.get("receipt") or {}
    for number, end in enumerate(receipt.get("ended", ()), 1):
        proof = "verified gone" if end["verified"] else "NOT verified"
        whose = "" if end["principal"] in end["evidence"] else f"{end['principal']}: "
        flat[proof if number == 1 else f"{proof} ({number})"] = f"{whose}{end['evidence']} ({end['method']})"
    for scope, fields in answer.get("credentials", {}).items():
        flat |= {f"{scope}.{name}": value for name, value in fields.items()}
    if token := answer.get("wrapping_token"):
        flat["wrapping_token"] = token
    return flat


def _print_grant(answer: dict[str, Any], output: str) -> None:
    show(answer if output != "table" else _summary(answer), output)
