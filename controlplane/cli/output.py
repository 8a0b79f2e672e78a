"""Data on stdout as a table, JSON or YAML; talk on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence

import click

from controlplane.model.canonical import JsonValue

_WIDE = 10_000
FORMATS = ("table", "json", "yaml")

output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="How data is printed."
)


def say(text: str) -> None:
    """A sentence for a person, on stderr."""
    click.echo(text, err=True)


def show(data: JsonValue, output: str, *, columns: Sequence[str] = ()) -> None:
    """Print `data` on stdout: an object as `key  value` lines, a list of objects as a table of `columns`."""
    match output:
        case "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        case "yaml":
            import yaml

            click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
        case _:
            _table(data, columns)


def _table(data: JsonValue, columns: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if columns else None, show_header=bool(columns), pad_edge=False)
    rows: list[list[str]]
    if isinstance(data, list):
        rows = [[_cell(row.get(name)) for name in columns] for row in data if isinstance(row, Mapping)]
        for name in columns:
            table.add_column(name.replace("_", " "), overflow="fold")
    elif isinstance(data, Mapping):
        rows = [[key.replace("_", " "), _cell(value)] for key, value in data.items() if value is not None]
    else:
        rows = [[_cell(data)]]
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: what others wrote is never read as markup
    # A terminal folds what is too wide for it; whatever reads a pipe gets whole lines.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "".join(char if char.isprintable() else "�" for char in value)
    return json.dumps(value, ensure_ascii=False)
