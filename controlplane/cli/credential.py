"""`shorthold credential`: a credential in the words of PostgreSQL, AWS, Kubernetes, git, Docker or a shell."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import click

from controlplane.cli.asking import fail, narrowing, parameter_option
from controlplane.cli.handing import fitting, pgpass_line
from controlplane.cli.output import say
from controlplane.model.errors import ControlPlaneError, InvalidRequestError
from controlplane.sdk import exchanges
from controlplane.sdk.access import Access, Credential
from controlplane.sdk.driving import BlockingLine, drive
from controlplane.sdk.exchanges import Wish
from controlplane.sdk.refusals import AnsweredError
from controlplane.sdk.surroundings import kubernetes_api_version, surroundings

_GIVES: Final = "get"
_ACTIONS: Final = (_GIVES, "store", "erase", "list")
"""What git and Docker say; only `get` means anything to us, since nothing is ever stored."""


@click.command()
@click.argument("entitlement")
@click.argument("action", type=click.Choice(_ACTIONS), default=_GIVES)
@click.option("--format", "form", type=click.Choice(["pgpass", "aws", "kubernetes", "git", "docker", "env", "json"]))
@click.option("--task", required=True, help="The id of the task this is for; finishing it ends the credential.")
@click.option("--intent", required=True, help="Which of the entitlement's intents.")
@click.option("--reason", default=None, help="Why, in a sentence, for whoever reads the audit log.")
@parameter_option
@click.option("--ttl", default=None, help="How long, such as 5m; the entitlement's default otherwise.")
@click.option("--scope", default=None, help="Which credential, where there are several.")
@click.option("--where", default="*:*:*", show_default=True, help="pgpass: HOST:PORT:DATABASE that the line is for.")
@click.option("--username", default=None, help="git, docker: the name, where the credential has none.")
def credential(  # noqa: PLR0917 # click passes each option by name
    entitlement: str,
    action: str,
    form: str | None,
    task: str,
    intent: str,
    reason: str | None,
    parameters: tuple[tuple[str, str], ...],
    ttl: str | None,
    scope: str | None,
    where: str,
    username: str | None,
) -> None:
    """Print a new credential of ENTITLEMENT as another tool takes it, on a pipe only.

    Nothing is cached: each call is a grant of its own. It ends by its time, or with `shorthold task finish TASK`.

    \b
    Examples:
      credential_process = shorthold credential reports --task T-1 --intent report --format aws
      git config credential.https://git.acme.example.helper \\
        '!shorthold credential forge --task T-2 --intent push --format git'
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    if form is None:
        raise InvalidRequestError("say in whose words: --format pgpass, aws, kubernetes, git, docker, env or json")
    server = "" if sys.stdin.isatty() or form not in {"git", "docker"} else sys.stdin.read()
    if action != _GIVES:
        click.echo("{}" if action == "list" else "", nl=action == "list")
        return
    if sys.stdout.isatty():
        raise InvalidRequestError("a credential is not printed on a terminal: let the tool that needs it call this")
    asked = {"entitlement": entitlement, "task": task, "intent": intent, "reason": reason, "ttl": ttl}
    wish = Wish(asked={**asked, **narrowing(parameters)})
    line = BlockingLine(surroundings())
    try:
        opened = drive(exchanges.enter(wish, time.monotonic), line)
        if opened.beat is not None:
            say(f"{entitlement} wants heartbeats: `shorthold grant heartbeat {opened.id} --every 20s` keeps it alive.")
        access = Access(opened)
        try:
            text = _written(form, access, scope, where=where, server=server.strip(), username=username)
        except ControlPlaneError:
            drive(exchanges.leave(opened.id, "failed", None), line)
            raise
    except AnsweredError as error:
        fail(error)
    finally:
        line.close()
    click.echo(text, nl=False)


def _written(form: str, access: Access, scope: str | None, *, where: str, server: str, username: str | None) -> str:
    match form:
        case "pgpass":
            return pgpass_line(fitting(access, ("username", "password"), scope), where)
        case "git":
            name, password = _login(access, scope, username)
            return f"username={name}\npassword={password}\npassword_expiry_utc={_epoch(access)}\n"
        case "docker":
            name, password = _login(access, scope, username)
            return _json({"ServerURL": server, "Username": name, "Secret": password})
        case "env":
            return "".join(
                f"export {_variable(name, field)}={shlex.quote(access[name][field])}\n"
                for name in access
                for field in access[name]
                if scope in {None, name}
            )
        case "json":
            told = {name: {field: access[name][field] for field in access[name]} for name in access}
            return _json({"grant": access.id, "expires_at": access.expires_at, "credentials": told})
        case _:
            fields, write = _DOCUMENTS[form]
            return _json(write(next_fitting(access, fields, scope), access.expires_at))


def next_fitting(access: Access, choices: tuple[tuple[str, ...], ...], scope: str | None) -> Credential:
    """The one credential that has the fields of the first of `choices` that any has."""
    for fields in choices[:-1]:
        try:
            return fitting(access, fields, scope)
        except InvalidRequestError:
            continue
    return fitting(access, choices[-1], scope)


def _aws(credential: Credential, expires_at: str) -> dict[str, Any]:
    """Source: AWS CLI docs, "Sourcing credentials with an external process"."""
    temporary = {"SessionToken": credential["session_token"]} if "session_token" in credential else {}
    return {
        "Version": 1,
        "AccessKeyId": credential.access_key,
        "SecretAccessKey": credential.secret_key,
        **temporary,
        "Expiration": expires_at,
    }


def _kubernetes(credential: Credential, expires_at: str) -> dict[str, Any]:
    """Source: Kubernetes docs, client authentication (v1), ExecCredential."""
    status = (
        {"token": credential.token}
        if "token" in credential
        else {"clientCertificateData": credential.certificate, "clientKeyData": credential.private_key}
    )
    ends = datetime.fromisoformat(expires_at).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": kubernetes_api_version("client.authentication.k8s.io/v1"),
        "kind": "ExecCredential",
        "status": {**status, "expirationTimestamp": ends},
    }


_DOCUMENTS: Final[Mapping[str, tuple[tuple[tuple[str, ...], ...], Callable[[Credential, str], dict[str, Any]]]]] = {
    "aws": ((("access_key", "secret_key"),), _aws),
    "kubernetes": ((("token",), ("certificate", "private_key")), _kubernetes),
}


def _login(access: Access, scope: str | None, username: str | None) -> tuple[str, str]:
    """A name and what proves it. Source: git-credential(1); docker-credential-helpers, "Development"."""
    held = next_fitting(access, (("username", "password"), ("token",), ("password",)), scope)
    name = username or (held.username if "username" in held else None)
    if name is None:
        raise InvalidRequestError(f"the credential of {held.scope} has no user name: give one by --username")
    return name, held["password" if "password" in held else "token"]


def _variable(scope: str, field: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in f"{scope}_{field}").upper()


def _epoch(access: Access) -> int:
    return int(datetime.fromisoformat(access.expires_at).timestamp())


def _json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, indent=2) + "\n"
