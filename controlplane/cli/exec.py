"""`shorthold exec`: run a program with a credential of its own, and end the access with it."""

import signal
import sys
from types import FrameType
from typing import Never

import click

from controlplane.cli.asking import GRANT_ID, fail, narrowing, parameter_option
from controlplane.cli.child import run
from controlplane.cli.handing import Handing, handed
from controlplane.cli.output import say
from controlplane.model.errors import InvalidRequestError
from controlplane.sdk.lending import Lending, grant, resume
from controlplane.sdk.refusals import AnsweredError, WaitingError
from controlplane.sdk.surroundings import for_child, runtime_directory

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("entitlement")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--task", default=None, help="The id of the task this is for; you choose it.")
@click.option("--parent", default=None, help="The task of yours that it is a part of.")
@click.option("--intent", default=None, help="Which of the entitlement's intents.")
@click.option("--grant", "waited", type=GRANT_ID, default=None, help="One that people have agreed to, instead.")
@click.option("--reason", default=None, help="Why, in a sentence, for whoever reads the audit log.")
@click.option("--ttl", default=None, help="How long, such as 5m; the entitlement's default otherwise.")
@parameter_option
@click.option("--wait", is_flag=True, help="Where people have to agree: wait until they have.")
@click.option("--renew", is_flag=True, help="Keep it as long as CMD runs, within the entitlement's maximum.")
@click.option("--file", "files", multiple=True, metavar="NAME=SCOPE.FIELD", help="NAME is a file (0600) that holds it.")
@click.option("--fd", "fds", multiple=True, metavar="NAME=SCOPE.FIELD", help="NAME is a path that can be read once.")
@click.option("--env", "envs", multiple=True, metavar="NAME=SCOPE.FIELD", help="NAME holds it itself.")
@click.option("--scope", default=None, help="Which credential a known program gets, where there are several.")
def exec(  # noqa: PLR0917 # click passes each option by name
    entitlement: str,
    command: tuple[str, ...],
    task: str | None,
    parent: str | None,
    intent: str | None,
    waited: str | None,
    reason: str | None,
    ttl: str | None,
    parameters: tuple[tuple[str, str], ...],
    wait: bool,
    renew: bool,
    files: tuple[str, ...],
    fds: tuple[str, ...],
    envs: tuple[str, ...],
    scope: str | None,
) -> None:
    """Run CMD with ENTITLEMENT's credential, without a shell; finish when it ends. Its exit status is CMD's.

    psql, pg_dump, mysql, mariadb, ssh, scp, sftp and curl get what they need by themselves; any other program by
    --file, --fd or --env. Signals go on to CMD. Killed with -9, the access ends by its heartbeat or its time.
    127: there is no such program; 126: it cannot be run; 128 and its number: a signal ended it.

    \b
    Examples:
      shorthold exec orders-read --task T-1 --intent answer-question -- psql -h db -c "TABLE sales.orders"
      shorthold exec gateway --task T-2 --intent pay --file API_KEY_FILE=gateway.api_key -- ./pay
      shorthold exec orders-read --task T-3 --intent prepare-report --env PGPASSWORD=orders.password -- ./report
      shorthold exec orders-refund --grant gr_... -- psql -h db orders
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    handing = Handing.parse(command, files=files, fds=fds, envs=envs, scope=scope)
    values = narrowing(parameters).get("parameters")
    if waited is not None:
        if task or intent or parent or reason or ttl or values:
            raise click.UsageError("--grant was asked for before: what it is for was said then")
        asked = resume(waited, wait=wait, renew=renew)
    elif task is None or intent is None:
        raise click.UsageError(f"Missing option '--{'intent' if task else 'task'}'.")
    else:
        asked = grant(
            entitlement, intent=intent, task=task, parent=parent, reason=reason, ttl=ttl, parameters=values, renew=renew
        )
    for sign in _ENDING:
        signal.signal(sign, _end)
    try:
        try:
            _run(asked, handing, entitlement)
        except WaitingError as waits:
            if not wait:
                raise
            say(f"{waits.detail}.")
            _run(resume(waits.id, wait=True, renew=renew), handing, entitlement)
    except AnsweredError as error:
        fail(error)


def _run(lending: Lending, handing: Handing, entitlement: str) -> None:
    with lending as access:
        if access.entitlement != entitlement:
            raise InvalidRequestError(f"{access.id} is of {access.entitlement}, and not of {entitlement}")
        with handed(handing, access, runtime_directory()) as ready:
            if status := run(ready.command, for_child(**ready.environment)):
                sys.exit(status)  # in here, so that the grant is finished as failed


def _end(number: int, frame: FrameType | None) -> Never:
    """Before CMD runs: whatever was made by then is taken back on the way out."""
    del frame
    sys.exit(128 + number)
