"""Data on stdout as a table, JSON or YAML; talk on stderr."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from controlplane.model.canonical import JsonValue  # pydantic's, which takes longer than a whole command may

_WIDE = 10_000
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:\+00:00|Z)", re.ASCII)
FORMATS = ("table", "json", "yaml")

output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="How data is printed."
)


def say(text: str) -> None:
    """A sentence for a person, on stderr."""
    click.echo(text, err=True)


def show(data: "JsonValue", output: str, *, columns: Sequence[str] = ()) -> None:
    """Print `data` on stdout: an object as `key  value` lines, a list of objects as a table of `columns`."""
    match output:
        case "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        case "yaml":
            import yaml

            click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
        case _ if isinstance(data, list):
            rows = [[cell(row.get(name)) for name in columns] for row in data if isinstance(row, Mapping)]
            _table(rows, columns)
        case _ if isinstance(data, Mapping):
            told = {name: value for name, value in data.items() if value is not None}
            blocks = {name: value for name, value in told.items() if isinstance(value, str) and "\n" in value.strip()}
            _table([[name, cell(value)] for name, value in told.items() if name not in blocks], ())
            for name, text in blocks.items():  # a certificate, say: to be copied as it stands
                click.echo("\n".join([f"{name}:", *(cell(line) for line in text.strip().splitlines())]))
        case _:
            click.echo(cell(data))


def instant(text: str) -> str:
    """An instant in UTC as people read it, to the second; any other text as it is."""
    found = _INSTANT.fullmatch(text)
    return f"{found[1]}Z" if found else text


def _table(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(columns), header_style="", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns or ("", ""):
        table.add_column(name, overflow="fold", no_wrap=bool(columns))
    for row in rows:
        table.add_row(*(Text(text) for text in row))  # Text: what others wrote is never read as markup
    # A list is a line an item, however narrow the terminal; and whatever reads a pipe gets whole lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() and not columns else _WIDE)
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        click.echo(line.rstrip())


def cell(value: "JsonValue") -> str:
    """One value as a person reads it; what does not print is replaced, so that nobody's text moves a terminal."""
    if value is None:
        return ""
    if isinstance(value, str):
        return instant("".join(char if char.isprintable() else "�" for char in value))
    return json.dumps(value, ensure_ascii=False)
