"""`python -m benchmarks.grant`: what a grant costs its agent, against plain Vault and the bare calls, in one run."""

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.bare import Bare
from benchmarks.figures import Slice, report
from benchmarks.machine import machine, versions
from benchmarks.ours import Ours
from benchmarks.plain import Plain
from benchmarks.race import Race
from benchmarks.table import WAYS, show
from benchmarks.wire import WrongAnswerError
from controlplane.dev.issuer import mint
from controlplane.dev.orders import DATABASE
from controlplane.dev.shipped import shipped
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.model.plan import Compiled
from controlplane.model.secret import Secret
from controlplane.sync.catalog import Catalog
from controlplane.world import RandomIds, SystemClock

ENTITLEMENT: Final = "orders-read"
SUBJECT: Final = "system:serviceaccount:agents:benchmark"


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=12, show_default=True, help="Each round runs every way once.")
@click.option(
    "--iterations", type=click.IntRange(1), default=64, show_default=True, help="Grants in one slice of a round."
)
@click.option(
    "--concurrency", "concurrencies", type=click.IntRange(1, 64), multiple=True, default=(1, 8), show_default=True
)
@click.option(
    "--pause", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds between two grants of an agent."
)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(rounds: int, iterations: int, concurrencies: tuple[int, ...], pause: float, as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Measure what an agent waits for, and how long its credential outlives the finish. Not a test: no bounds."""
    signal.signal(signal.SIGTERM, interrupted)
    talk = Console(stderr=True, highlight=False)
    try:
        with stack_of_its_own(talk) as stack:
            race = Race(
                ways=ways_of(stack),
                rounds=rounds,
                iterations=iterations,
                concurrencies=concurrencies,
                pause=pause,
                dsn=lambda user, password: stack.postgres.dsn(user, password, DATABASE),
            )
            setting: dict[str, JsonValue] = {
                "machine": machine(),
                "versions": versions(stack),
                "rounds": rounds,
                "iterations": iterations,
                "pause": pause,
                "ways": dict(WAYS),
            }
            slices = _run(race, talk)
    except (ControlPlaneError, WrongAnswerError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(report(slices, setting), indent=2))
    else:
        show(Console(highlight=False), slices, setting)
    errors = [error for part in slices for error in part.errors]
    for error in sorted(set(errors)):
        talk.print(f"[red]{errors.count(error)} times:[/] {error}")
    sys.exit(1 if errors else 0)


@contextmanager
def stack_of_its_own(talk: Console) -> Generator[Stack]:
    """A stack of its own in a temporary directory, gone afterwards whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="shorthold-bench-"))
    stage = Stage(directory)
    try:
        talk.print("[dim]Starting OpenBao, PostgreSQL, an issuer and the control plane …[/]")
        stage.up(_say_nothing)
        yield stage.stack
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave servers behind
        stage.clear()
        shutil.rmtree(directory, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _say_nothing(sentence: str) -> None:
    del sentence


def ways_of(stack: Stack) -> tuple[Plain, Bare, Ours]:
    """The three ways on this stack, each ready to be used."""
    key, url = stack.issuer.key, stack.issuer.url  # read once: an agent's issuer is no part of what is measured

    def token() -> Secret:
        return mint(key, url, SUBJECT, now=SystemClock().now(), ids=RandomIds(), lifetime=timedelta(hours=1))

    compiled = _compiled()
    plain = Plain(stack=stack, subject=SUBJECT, token=token())
    plain.set_up()
    return (
        plain,
        Bare(stack=stack, subject=SUBJECT, compiled=compiled),
        Ours(stack=stack, compiled=compiled, token=token),
    )


def _compiled() -> Compiled:
    compiled = Catalog(shipped("roles"), LAYOUT, SystemClock()).get(ENTITLEMENT)
    if compiled is None:
        raise ConfigurationError(f"the shipped entitlement {ENTITLEMENT} is not sound: run `shorthold sync lint`")
    return compiled


def _run(race: Race, talk: Console) -> list[Slice]:
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as progress:
        bar = progress.add_task("warming up", total=race.slices)

        def done(part: Slice) -> None:
            progress.update(bar, advance=1, description=f"{part.way}, {part.concurrency} at once")

        return race.run(done)


def interrupted(number: int, frame: object) -> NoReturn:
    """Being told to end is the same as Ctrl-C: what was started is taken away."""
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
