"""`shorthold`: run a command, and turn whatever ends it into a sentence and an exit status."""

import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from controlplane.model.errors import ControlPlaneError

_MEANWHILE: Final = {
    "exec": "What was granted was finished; where nobody heard that, it ends by its time.",
    "grant": "What was begun is finished or revoked by the worker.",
    "task": "A task that was finished stays so; what was begun is revoked by the worker.",
    "dev": "What was started goes on: `shorthold dev up` continues, `shorthold dev down` stops it.",
}
"""What becomes of a command that somebody interrupts, where something does."""


def main() -> NoReturn:
    """Run the command; an error becomes a few lines on stderr and an exit status, never a traceback."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:  # while the command was still being imported
        sys.exit(_interrupted())


def _run() -> int:
    import click  # here, because importing takes long enough for a Ctrl-C

    from controlplane.cli.commands import shorthold
    from controlplane.model.errors import ConfigurationError, ControlPlaneError

    # A file or a socket would become the standard output.
    closed = sys.stdout is None  # pyright: ignore[reportUnnecessaryComparison] # it is None where it was closed
    try:
        if closed:
            raise ConfigurationError("standard output is closed: there is nowhere to write to")
        status: object = shorthold.main(standalone_mode=False)
    except click.exceptions.Abort:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return 1
    except ControlPlaneError as error:
        tell(error)
        return error.exit_status
    except BrokenPipeError:
        return 1
    except OSError as error:
        tell(ConfigurationError(_said(error)))
        _drop_output()
        return 1
    return status if isinstance(status, int) else 0  # click returns what ctx.exit() was given


def tell(error: "ControlPlaneError") -> None:
    """Say on stderr what happened, why, and what to do next."""
    import click

    click.secho(f"Error [{error.code}]: {error.detail}", fg="red", err=True)
    for reason in error.reasons:
        click.echo(f"  {reason.decision}: {reason.detail} [{reason.code}]", err=True)
    if error.hint:
        click.echo(f"  What to do: {error.hint}", err=True)


def _interrupted() -> int:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command == "dev" and "up" not in sys.argv:
        command = ""
    sys.stderr.write(f"Interrupted. {_MEANWHILE.get(command, '')}".rstrip() + "\n")
    return 130


def _said(error: OSError) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError):  # only the working directory is looked up without a name
        return "the working directory does not exist any more"
    return f"reading or writing failed: {error.strerror}"


def _drop_output() -> None:
    """What could not be written is not tried again at exit, where it would end in a traceback."""
    import os

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
