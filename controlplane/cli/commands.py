"""The command line's groups and what they are for; each is imported only when it is used."""

import importlib
from typing import Final

import click
from typing_extensions import override

from controlplane import __version__

COMMANDS: Final = {
    "audit": "Read, verify and export the audit log.",
    "credential": "Print a credential as psql, aws, kubectl, git or docker takes it.",
    "doctor": "Is everything all right, and what to do if not.",
    "demo": "Tell the whole story on embedded servers, checking every step.",
    "dev": "Real servers on loopback: up, down, status, env, token.",
    "exec": "Run a program with a credential of its own, and end the access with it.",
    "grant": "Request, collect, show, renew and finish grants; approve, deny, review.",
    "incident": "Preview, cut, freeze, thaw: end what is granted, and prove it.",
    "mcp": "Give a model tools to ask for access: over stdio, or over HTTP.",
    "policy": "Policies in Cedar: test, init, schema.",
    "serve": "Run the control plane: HTTP API and worker.",
    "sync": "Make Vault's roles equal the entitlements: lint, plan, apply, schema, who.",
    "task": "Show and finish a task, with all that was granted for it.",
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

    Settings: flag, then environment (SHORTHOLD_API__PORT=8701; BAO_* and VAULT_* for the server), then the file
    shorthold.toml here or what SHORTHOLD_CONFIG names, then the default. docs/operating.md shows a whole file.

    Exit status: 0 ok · 1 wrong use or local fault · 2 the other side refused or failed · 3 denied by
    decision · 4 pending approval · 5 something could not be verified gone.
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
