"""`shorthold demo`: the whole story, on real servers, checking itself."""

import sys
from pathlib import Path

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave the servers and their data; `shorthold dev` in the directory named.")
def demo(keep: bool) -> None:
    """Tell the whole story on embedded servers and check every claim of it.

    An own OpenBao, PostgreSQL, OIDC issuer and control plane are started in a temporary directory and are gone
    afterwards. Exit status 0 only if every claim was checked and held.

    \b
    Examples:
      shorthold demo
      NO_COLOR=1 shorthold demo
    """  # noqa: D301 # \b is click's mark for a block that keeps its lines
    import shutil
    import signal
    import tempfile

    from controlplane.dev.stage import Stage
    from controlplane.dev.story import BrokenPromiseError, tell

    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))  # so that it tidies up then, too
    directory = Path(tempfile.mkdtemp(prefix="shorthold-demo-"))
    stage = Stage(directory)
    try:
        tell(stage)
    except BrokenPromiseError as error:
        click.secho(f"A promise was not kept: {error}", fg="red", err=True)
        sys.exit(5)
    finally:
        if keep:
            click.echo(f"The servers go on in {directory}: `cd {directory} && shorthold dev status`", err=True)
        else:
            stage.clear()
            shutil.rmtree(directory, ignore_errors=True)
