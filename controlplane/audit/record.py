"""Makes audit events: whatever others wrote is cut to a sane length and cannot start a second line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.model.canonical import JsonValue, canonical
from controlplane.model.event import Event, Kind
from controlplane.model.grant import GrantId
from controlplane.ports import Clock, Ids

MAX_TEXT = 2_000
"""Characters of one text that are kept."""
MAX_ITEMS = 200
"""Entries of one list or object that are kept."""
MAX_DEPTH = 8
"""Levels of nesting that are kept."""
MAX_BODY = 32_768
"""Bytes of a whole body; a longer one is kept as the beginning of its JSON text."""
_MAX_INT = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Fits the port Recorder."""

    clock: Clock
    ids: Ids

    def __call__(self, kind: Kind, grant: GrantId | None = None, /, **body: JsonValue) -> Event:
        """An event of now, with a new id. Cutting shows: what is left out is counted in its place."""
        return Event(id=self.ids.new("ev"), at=self.clock.now(), kind=kind, grant=grant, body=_fit(_object(body, 0)))


def one_line(text: str) -> str:
    """`text` on one line, as `printable` gives it, and cut to a sane length."""
    cut = printable(text[:MAX_TEXT])
    return cut if len(text) <= MAX_TEXT else f"{cut}…[{len(text) - MAX_TEXT} more]"


def printable(text: str) -> str:
    r"""`text` with everything that is no printable character as `\n`, `\x1b`, `\u2028`.

    Line ends, escape sequences, bidi marks, invisible characters and lone surrogates: a log reader must see
    them, and neither a terminal nor a database may act on them (attack L06).
    """
    if text.isprintable():
        return str(text)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _fit(body: dict[str, JsonValue]) -> dict[str, JsonValue]:
    whole = canonical(body)
    if len(whole) <= MAX_BODY:
        return body
    start = whole[: MAX_BODY // 2].decode(errors="ignore")
    return {"cut": f"{start}…[{len(whole) - MAX_BODY // 2} bytes more]"}


def _value(value: JsonValue, depth: int) -> JsonValue:
    if not isinstance(value, list | dict):
        return _scalar(value)
    if depth >= MAX_DEPTH:
        return f"…[{len(value)} deeper]"
    if isinstance(value, dict):
        return _object(value, depth)
    kept = [_value(item, depth + 1) for item in value[:MAX_ITEMS]]
    return kept if len(value) <= MAX_ITEMS else [*kept, f"…[{len(value) - MAX_ITEMS} more]"]


def _scalar(value: str | float | None) -> JsonValue:
    match value:
        case str():
            return one_line(value)
        case float() if not math.isfinite(value):
            return str(value)
        case int() if abs(value) >= _MAX_INT:
            return one_line(hex(value))
        case _:
            return value


def _object(value: Mapping[str, JsonValue], depth: int) -> dict[str, JsonValue]:
    kept: dict[str, JsonValue] = {}
    for number, (name, item) in enumerate(value.items()):
        if number == MAX_ITEMS:
            kept["…"] = f"[{len(value) - MAX_ITEMS} more]"
            break
        kept[one_line(name)] = _value(item, depth + 1)
    return kept
