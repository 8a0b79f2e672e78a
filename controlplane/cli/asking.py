"""Ask a control plane as whoever the environment says one is, and tell of a refusal."""

import sys
from collections.abc import Callable
from typing import Any

import click

from controlplane.cli.output import say
from controlplane.sdk.client import AnsweredError, Shorthold


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
        click.secho(f"Error [{error.told_code}]: {error.detail}", fg="red", err=True)
        for why in error.problem.get("reasons", ()):
            say(f"  {why.get('decision')}: {why.get('detail')} [{why.get('code')}]")
        if hint := error.problem.get("hint"):
            say(f"  What to do: {hint}")
        sys.exit(error.told_exit_status)
