"""Write links for others to read: one canonical JSON line each, or CSV that no spreadsheet obeys."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from controlplane.audit.chain import Unreadable
from controlplane.audit.record import printable
from controlplane.model.canonical import JsonObject, JsonValue, canonical, instant
from controlplane.model.event import Link

COLUMNS = ("seq", "at", "kind", "grant", "id", "body", "mac", "unreadable")
_OBEYED = ("=", "+", "-", "@")


def as_data(link: Link | Unreadable) -> JsonObject:
    """A link as data; one that cannot be read says so and keeps its number."""
    if isinstance(link, Unreadable):
        return {"seq": link.seq, "unreadable": link.what}
    event = link.event
    return {
        "seq": link.seq,
        "at": instant(event.at),
        "kind": event.kind.value,
        "grant": event.grant,
        "id": event.id,
        "body": dict(event.body),
        "mac": link.mac,
    }


def jsonl(links: Iterable[Link | Unreadable]) -> Iterator[str]:
    """One line a link: canonical JSON, so that two exports of the same chain are the same bytes."""
    for link in links:
        yield f"{canonical(as_data(link)).decode()}\n"


def csv_lines(links: Iterable[Link | Unreadable]) -> Iterator[str]:
    """A header and one line a link; a cell that a spreadsheet would run as a formula begins with `'` (attack L08)."""
    yield _line(COLUMNS)
    for link in links:
        data = as_data(link)
        yield _line([_cell(data.get(column)) for column in COLUMNS])


def _cell(value: JsonValue) -> str:
    text = value if isinstance(value, str) else "" if value is None else canonical(value).decode()
    shown = printable(text)  # also a lone carriage return, which ends a line for some readers
    return f"'{shown}" if shown.startswith(_OBEYED) else shown


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
