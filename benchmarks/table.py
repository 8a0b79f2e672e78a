"""The figures of a run on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Slice, Summary, ratios, summaries
from controlplane.model.canonical import JsonValue

WAYS: Final = {
    "plain": "(a) plain: Vault as its documentation shows it",
    "bare": "(b) bare: the calls of a grant with our compiled role, by a minimal client",
    "ours": "(c) ours: Shorthold's API with everything on",
}

_LEGEND: Final = """\
waits: ask until credential in hand, and finish until acknowledged. gone: finish sent until PostgreSQL has no such user
(a, b), or until the control plane has proved that and saved the receipt (c). served: grants whose agent went on;
ended: the same, counted until the last credential of a slice is gone."""


def show(console: Console, slices: Sequence[Slice], setting: Mapping[str, JsonValue]) -> None:
    """Machine, versions, and a table for each concurrency."""
    for about in ("machine", "versions"):
        told = setting[about]
        if isinstance(told, dict):
            console.print(f"[dim]{', '.join(f'{name} {value}' for name, value in told.items())}[/]", soft_wrap=True)
    for concurrency, ways in summaries(slices).items():
        console.print(_table(concurrency, ways))
    console.print(f"[dim]{'. '.join(WAYS.values())}. {_LEGEND}[/]", soft_wrap=True)


def _table(concurrency: int, ways: Mapping[str, Summary]) -> Table:
    table = Table(title=f"{concurrency} at once; spans in ms, rates in grants per second", title_justify="left")
    table.add_column("", no_wrap=True)
    for title in ("grants", "errors", "waits p50", "p99", "gone p50", "p99", "served/s", "ended/s"):
        table.add_column(title, justify="right")
    for way, figures in ways.items():
        spans = (figures.waited["p50"], figures.waited["p99"], figures.gone["p50"], figures.gone["p99"])
        table.add_row(
            way,
            str(figures.count),
            str(figures.errors),
            *(f"{span * 1000:.1f}" for span in spans),
            f"{figures.served:.0f}",
            f"{figures.ended:.0f}",
        )
    table.add_section()
    for name, values in ratios(ways).items():
        table.add_row(name, "", "", *(f"{value:.2f}" for value in values.values()))
    return table
