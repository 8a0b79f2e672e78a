"""`shorthold grant renew / heartbeat`: keep what one has for as long as the task needs it, and may have it."""

import contextlib
import sys
import time
from datetime import datetime, timedelta
from typing import Any

import click

from controlplane.cli.asking import GRANT_ID, client, print_grant, told
from controlplane.cli.output import instant, output_option, say, show
from controlplane.model.duration import format_duration, parse_duration
from controlplane.model.errors import ControlPlaneError, InvalidRequestError
from controlplane.sdk.client import AnsweredError, Shorthold, UnreachableError

_TRY_AGAIN = frozenset({"not-authenticated", "store-unavailable", "busy", "rate-limited", "lost-race", "internal"})
"""A beat that was refused so may be taken the next time: a token in a file is a new one by then."""


@click.command()
@click.argument("id", type=GRANT_ID)
@click.option("--ttl", default=None, help="How long from now, such as 5m; the entitlement's default otherwise.")
@output_option
def renew(id: str, ttl: str | None, output: str) -> None:
    """Let a grant end later, within its entitlement's maximum from its beginning.

    Everything is decided anew before: what would not be granted any more ends by it (exit status 3, context-changed).
    Any other refusal leaves the end as it was.
    """
    with client() as api:
        answer = told(lambda: api.renew(id, ttl=ttl))
    print_grant(answer, output)


@click.command()
@click.argument("id", type=GRANT_ID)
@click.option(
    "--every", default=None, help="Keep beating at this interval, such as 20s, until Ctrl-C or the grant ends."
)
@output_option
def heartbeat(id: str, every: str | None, output: str) -> None:
    """Say that the task goes on; a grant whose entitlement asks for beats ends when one does not come in time.

    Everything is decided anew each time. With --every it tries again while the control plane does not answer, and
    exits with 0 when the grant has ended as it should.

    \b
    Examples:
      shorthold grant heartbeat gr_...
      shorthold grant heartbeat gr_... --every 20s &
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    pause = None if every is None else _span(every)
    with client() as api:
        if pause is None:
            answer = told(lambda: api.heartbeat(id))
            show(answer if output != "table" else _summary(answer), output)
            return
        with contextlib.suppress(KeyboardInterrupt):
            _keep_beating(api, id, pause)


def _keep_beating(api: Shorthold, id: str, pause: timedelta) -> None:
    from controlplane.world import SystemClock

    clock, ends = SystemClock(), None
    while True:
        try:
            answer = api.heartbeat(id)
        except (AnsweredError, UnreachableError) as error:
            if isinstance(error, AnsweredError) and error.told_code == "ended":
                say(f"The grant has ended: {error.detail}")
                return
            if ends is None or (isinstance(error, AnsweredError) and error.told_code not in _TRY_AGAIN):
                told(lambda error=error: _raise(error))
            say(f"No beat was taken: {error.detail}")
            if ends is not None and clock.now() >= ends:
                say("The grant has run out by now.")
                sys.exit(2)
        else:
            if ends is None or ends != _instant(answer["expires_at"]):
                _tell(answer, pause)
                if (due := answer["heartbeat_due_at"]) and clock.now() + pause >= _instant(due):
                    say("The next beat would come too late: choose a shorter --every.")
            ends = _instant(answer["expires_at"])
        time.sleep(pause.total_seconds())


def _tell(answer: dict[str, Any], pause: timedelta) -> None:
    ends, due, at = answer["expires_at"], answer["heartbeat_due_at"], answer["grant"]["entitlement"]
    more = f"the next beat is due by {instant(due)}" if due else f"{at} asks for no beats"
    say(f"The grant ends at {instant(ends)}; {more}. Beating every {format_duration(pause)}.")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _raise(error: ControlPlaneError) -> dict[str, Any]:
    raise error


def _span(every: str) -> timedelta:
    try:
        return parse_duration(every)
    except ValueError as error:
        raise InvalidRequestError(f"--every: {error}") from None


def _summary(answer: dict[str, Any]) -> dict[str, Any]:
    grant: dict[str, Any] = answer["grant"]
    return {
        "id": grant["id"],
        "state": grant["state"],
        "expires_at": answer["expires_at"],
        "heartbeat_due_at": answer["heartbeat_due_at"],
    }
