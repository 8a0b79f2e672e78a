"""Ask a control plane as whoever the environment says one is, tell of a refusal, and print a grant."""

import re
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

import click
from typing_extensions import override

from controlplane.cli.output import say, show
from controlplane.sdk.client import AnsweredError, Shorthold


class IdType(click.ParamType[str]):
    """The id of a thing, so that a slip of the hand is told before anything is sent."""

    name = "id"

    def __init__(self, thing: str, prefix: str) -> None:
        self._thing, self._prefix = thing, prefix

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(rf"{self._prefix}[a-z2-7]{{24}}", value):
            said = f"{value!r} is no {self._thing} id: it looks like {self._prefix} and 24 characters"
            self.fail(said, param, ctx)
        return value


GRANT_ID: Final = IdType("grant", "gr_")
FREEZE_ID: Final = IdType("freeze", "fz_")


class ParameterType(click.ParamType[tuple[str, str]]):
    """`ticket=42`: the value of one parameter."""

    name = "name=value"

    @override
    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, given, text = value.partition("=")
        if not (name and given):
            self.fail(f"{value!r} is no parameter: write name=value, such as ticket=42", param, ctx)
        return name, text


parameter_option = click.option(
    *("--parameter", "parameters"),
    type=ParameterType(),
    multiple=True,
    help="What to narrow it to, such as ticket=42; once for each parameter of the entitlement.",
)


def narrowing(parameters: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The parameters as a request has them; none is no field at all. Exits where one is given twice."""
    values = dict(parameters)
    if len(values) < len(parameters):
        raise click.UsageError("a parameter is given twice")
    return {"parameters": values} if values else {}


def client() -> Shorthold:
    """The control plane at `SHORTHOLD_ADDR`, asked with the token of the moment. Close it when done."""
    from controlplane.settings import caller

    me = caller()
    return Shorthold(me.addr, lambda: caller().token, timeout=90)


def told(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make the call; a refusal is told with its reasons, and its kind is the exit status."""
    try:
        return call()
    except AnsweredError as error:
        fail(error)


def fail(error: AnsweredError) -> NoReturn:
    """Tell a refusal with its reasons; its kind is the exit status."""
    click.secho(f"Error [{error.told_code}]: {error.detail}", fg="red", err=True)
    for why in error.problem.get("reasons", ()):
        say(f"  {why.get('decision')}: {why.get('detail')} [{why.get('code')}]")
    if hint := error.problem.get("hint"):
        say(f"  What to do: {hint}")
    sys.exit(error.told_exit_status)


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to see of a grant, as one flat table."""
    told: dict[str, Any] = answer["grant"]
    names = (
        "id",
        "state",
        "entitlement",
        "task",
        "intent",
        "expires_at",
        "heartbeat_due_at",
        "why",
        "revoked_at",
        "failing",
    )
    flat = {name: told.get(name) for name in names}
    flat |= {f"parameter {name}": value for name, value in sorted(told.get("parameters", {}).items())}
    if denial := answer.get("denial"):
        flat["denied by"] = f"{denial['issuer']} {denial['subject']}: {denial['reason']}"
    for given in answer.get("approvals", ()):
        flat[f"approved by {given['subject']}"] = given["reason"] or given["at"]
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


def print_grant(answer: dict[str, Any], output: str) -> None:
    """Print a grant as it was answered, or what a person wants to see of it."""
    show(answer if output != "table" else summary(answer), output)
