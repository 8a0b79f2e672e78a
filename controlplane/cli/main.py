"""`shorthold`: the command and its groups, each imported only when it is used."""

import importlib
import sys
from typing import Final, NoReturn

import click
from typing_extensions import override

from controlplane import __version__
from controlplane.model.errors import ControlPlaneError

COMMANDS: Final = {
    "audit": "Read, verify and export the audit log.",
    "demo": "Tell the whole story on embedded servers, checking every step.",
    "dev": "Real servers on loopback: up, down, status, env, token.",
    "grant": "Request, show, list and finish grants.",
    "serve": "Run the control plane: HTTP API and worker.",
    "sync": "Make Vault's roles equal the entitlements: lint, plan, apply, schema.",
    "vault": "Set up mounts, policies and trust in Vault.",
}
"""Every command with its line of help; each lives in the file of its name and is called like it."""


class _Commands(click.Group):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"controlplane.cli.{cmd_name}"), cmd_name)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # the lines stand here so that --help imports no command
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shorthold")
def shorthold() -> None:
    """Access that is let to one task, and provably gone afterwards.

    \b
    Examples:
      shorthold dev up
      shorthold sync plan
      shorthold grant request orders-read --task T-1 --intent answer-question --reason "who ordered?"

    Exit status: 0 ok · 1 wrong use or local fault · 2 the other side refused or failed · 3 denied by
    decision · 4 pending approval · 5 something could not be verified gone.
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines


def main() -> NoReturn:
    """Run the command; an error of ours becomes three lines on stderr and its exit status, never a traceback."""
    try:
        status: object = shorthold.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted. What was begun is finished or revoked by the worker.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except ControlPlaneError as error:
        tell(error)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)  # click returns what ctx.exit() was given


def tell(error: ControlPlaneError) -> None:
    """Say on stderr what happened, why, and what to do next."""
    click.secho(f"Error [{error.code}]: {error.detail}", fg="red", err=True)
    for reason in error.reasons:
        click.echo(f"  {reason.decision}: {reason.detail} [{reason.code}]", err=True)
    if error.hint:
        click.echo(f"  What to do: {error.hint}", err=True)
