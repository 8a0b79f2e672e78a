"""`shorthold demo`: the whole story, on real servers, checking itself."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Never

import click

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--keep", is_flag=True, help="Leave the servers and their data; `shorthold dev` in the directory named.")
def demo(keep: bool) -> None:
    """Tell the whole story on embedded servers and check every claim of it.

    An own OpenBao, PostgreSQL, OIDC issuer and control plane are started in a temporary directory and are gone
    afterwards, whatever servers the environment names. Exit status 0 only if every claim was checked and held.

    \b
    Examples:
      shorthold demo
      NO_COLOR=1 shorthold demo
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    import tempfile

    from controlplane.dev.stage import Stage
    from controlplane.dev.story import BrokenPromiseError, tell
    from controlplane.settings import forget_environment

    forget_environment()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)
    directory = Path(tempfile.mkdtemp(prefix="shorthold-demo-"))
    stage = Stage(directory)
    try:
        tell(stage)
    except BrokenPromiseError as error:
        click.secho(f"A promise was not kept: {error}", fg="red", err=True)
        sys.exit(5)
    finally:
        _ignore_signals()  # an impatient second Ctrl-C would leave servers behind
        if keep:
            click.echo(f"The servers go on in {directory}: `cd {directory} && shorthold dev status`", err=True)
        else:
            _clear(stage.clear, directory)


def _clear(stop: Callable[[], None], directory: Path) -> None:
    import shutil

    from controlplane.model.errors import ControlPlaneError, LocalServerError

    try:
        stop()
        shutil.rmtree(directory)
    except (ControlPlaneError, OSError) as error:
        raise LocalServerError(
            f"not everything of the demo could be cleared: {error}. `cd {directory} && shorthold dev down --destroy`"
        ) from None


def _end(number: int, frame: FrameType | None) -> Never:
    del frame
    _ignore_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
