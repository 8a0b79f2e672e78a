"""`python -m benchmarks.revoke`: from finish to verified gone, 1, 10 and 100 at once, beside the bare calls."""

import json
import signal
import sys

import click
from rich.console import Console
from rich.table import Table

from benchmarks.burst import Bursts
from benchmarks.figures import Slice, report, summaries
from benchmarks.grant import interrupted, stack_of_its_own, ways_of
from benchmarks.machine import machine, versions
from benchmarks.wire import WrongAnswerError
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ControlPlaneError


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Each runs every way and size.")
@click.option("--sizes", type=click.IntRange(1, 1000), multiple=True, default=(1, 10, 100), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(rounds: int, sizes: tuple[int, ...], as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Measure how long credentials outlive their finish. Not a test: no bounds.

    bare: revoke-accessor at OpenBao, until PostgreSQL has no such user; nobody proves anything. ours: `finish`, until
    leases are looked up, PostgreSQL was asked and the signed receipt is on disk.
    """
    signal.signal(signal.SIGTERM, interrupted)
    talk = Console(stderr=True, highlight=False)
    try:
        with stack_of_its_own(talk) as stack:
            _, bare, ours = ways_of(stack)
            setting: dict[str, JsonValue] = {"machine": machine(), "versions": versions(stack), "rounds": rounds}
            slices = Bursts(ways=(bare, ours), rounds=rounds, sizes=sizes).run(lambda part: _told(talk, part))
    except (ControlPlaneError, WrongAnswerError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(report(slices, setting), indent=2))
    else:
        _show(Console(highlight=False), slices)
    errors = [error for part in slices for error in part.errors]
    for error in sorted(set(errors)):
        talk.print(f"[red]{errors.count(error)} times:[/] {error}")
    sys.exit(1 if errors else 0)


def _told(talk: Console, part: Slice) -> None:
    talk.print(f"[dim]{part.way}, {part.concurrency} at once: all gone after {part.cleared * 1000:.0f} ms[/]")


def _show(console: Console, slices: list[Slice]) -> None:
    table = Table(title="From finish to gone, ms", title_justify="left")
    for title in ("at once", "", "ended", "errors", "told p50", "gone p50", "gone p99", "ended/s"):
        table.add_column(title, justify="right")
    for size, ways in summaries(slices).items():
        for way, figures in ways.items():
            spans = (figures.finished["p50"], figures.gone["p50"], figures.gone["p99"])
            table.add_row(
                str(size),
                way,
                str(figures.count),
                str(figures.errors),
                *(f"{span * 1000:.1f}" for span in spans),
                f"{figures.ended:.0f}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
