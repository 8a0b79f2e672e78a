"""One YAML document as plain values with the place of each: a small, strict part of YAML, read from parser events.

Nothing is resolved that a reader could see in two ways: aliases, merge keys, tags, duplicate keys, several
documents, tabs, control characters and the scalars that YAML 1.1 turns into something else (`1:30`, `on`,
`010`, `~`) are refused where they stand. Source: YAML 1.1 type repository; PyYAML's resolver.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from controlplane.model.canonical import JsonValue

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 12

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in a file; both count from 1."""

    line: int
    column: int


START: Final = Place(1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The values, and where each stands: `keys` are places of keys, `values` those of what follows them."""

    value: JsonValue
    keys: Mapping[Path, Place]
    values: Mapping[Path, Place]

    def place(self, path: Path, *, of_key: bool = False) -> Place:
        """Where `path` stands, or the nearest thing around it that stands somewhere."""
        for length in range(len(path), -1, -1):
            found = self.keys.get(path[:length]) if of_key else None
            found = found or self.values.get(path[:length])
            if found is not None:
                return found
        return START


class RefusedError(Exception):
    """Something in a document that is not read, whatever it means; `rule` is stable for machines."""

    def __init__(self, place: Place, rule: str, message: str) -> None:
        super().__init__(message)
        self.place, self.rule, self.message = place, rule, message


def parse(raw: bytes) -> Document:
    """The document in `raw`.

    Raises: RefusedError: the first thing that is refused, with its place.
    """
    text = readable(raw)
    if yaml.__with_libyaml__:  # which reads it many times faster
        try:
            return _Reader(iter(yaml.parse(text, Loader=yaml.CSafeLoader))).document()
        except yaml.YAMLError:
            pass  # PyYAML's own parser judges, so that words and places of an error are the same everywhere
    return _Reader(_events(text)).document()


def readable(raw: bytes) -> str:
    """`raw` as text that a reviewer sees all of: UTF-8 in lines and spaces, and no larger than allowed.

    Raises: RefusedError: the first thing that is refused, with its place.
    """
    if len(raw) > MAX_BYTES:
        raise RefusedError(START, "too-large", f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        raise RefusedError(_place_after(before), "not-utf-8", "the file is not UTF-8 from here on") from None
    for found in _SUSPECT.finditer(decoded):
        char = found[0]
        if char != "\n" and _unseen(char):
            raise RefusedError(_place_after(decoded[: found.start()]), "forbidden-character", _naming(char))
    return decoded


_SUSPECT: Final = re.compile(r"[^\x20-\x7e]")


def _unseen(char: str) -> bool:
    """Control, format, surrogate, private or unassigned characters, and separators that are not plain spaces."""
    category = unicodedata.category(char)
    return category.startswith("C") or category in {"Zl", "Zp"}


def _naming(char: str) -> str:
    if char == "\n":
        return "a value stands in one line: fold a longer text with `>-`"
    if char == "\t":
        return "tabs are not read: indent with spaces"
    if char == "\r":
        return "the file has Windows line ends (CRLF): save it with LF"
    if char == "\ufeff":
        return "the file begins with a byte order mark: save it as UTF-8 without one"
    return f"the character U+{ord(char):04X} cannot be seen by a reviewer and is not read"


def _place_after(before: str) -> Place:
    return Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _events(text: str) -> Iterator[Event]:
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = START if mark is None else Place(mark.line + 1, mark.column + 1)
        raise RefusedError(place, "not-yaml", f"this is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise RefusedError(START, "not-yaml", f"this is not YAML: {error}") from None


def _place(event: Event) -> Place:
    mark = event.start_mark
    return START if mark is None else Place(mark.line + 1, mark.column + 1)


@dataclass(slots=True)
class _Reader:
    events: Iterator[Event]
    keys: dict[Path, Place] = field(default_factory=dict[Path, Place])
    values: dict[Path, Place] = field(default_factory=dict[Path, Place])

    def document(self) -> Document:
        documents = 0
        value: JsonValue = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise RefusedError(_place(event), "several-documents", "a file holds one document")
                if event.version or event.tags:
                    raise RefusedError(_place(event), "directive", "directives are not read: leave the % line out")
                value = self._value(next(self.events), ())
        if documents == 0:
            raise RefusedError(START, "empty", "the file is empty")
        return Document(value=value, keys=self.keys, values=self.values)

    def _value(self, event: Event, path: Path) -> JsonValue:
        place = _place(event)
        self.values[path] = place
        _check(event, place)
        if len(path) > MAX_DEPTH:
            raise RefusedError(place, "too-deep", f"nothing is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        return _scalar(cast("ScalarEvent", event), place)

    def _mapping(self, path: Path) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            place = _place(event)
            _check(event, place)
            if not isinstance(event, ScalarEvent):
                raise RefusedError(place, "key-not-text", "a key is a word, not a list or a mapping")
            key = _scalar(event, place)
            if not isinstance(key, str):
                raise RefusedError(place, "key-not-text", f"the key {event.value} is not read as text: quote it")
            if key in found:
                first = self.keys[(*path, key)]
                raise RefusedError(place, "duplicate-key", f"the key {key} stands in line {first.line} already")
            self.keys[(*path, key)] = place
            found[key] = self._value(next(self.events), (*path, key))
        return found

    def _sequence(self, path: Path) -> list[JsonValue]:
        found: list[JsonValue] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            found.append(self._value(event, (*path, len(found))))
        return found


def _check(event: Event, place: Place) -> None:
    if isinstance(event, AliasEvent):
        raise RefusedError(place, "alias", "aliases are not read: write the value out, so that a reviewer sees it")
    anchored = cast("NodeEvent", event)
    if anchored.anchor is not None:
        raise RefusedError(place, "anchor", "anchors are not read: write the value out where it is needed")
    tag = cast("str | None", cast("Any", event).tag)
    if tag is not None:
        raise RefusedError(place, "tag", f"tags are not read: leave {tag} out")


_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)
_resolve: Final = cast("Callable[[type, str, tuple[bool, bool]], str]", yaml.resolver.Resolver().resolve)


def _scalar(event: ScalarEvent, place: Place) -> JsonValue:
    text = event.value
    if not text.isprintable():  # escapes such as "\u202e" come to light here only; wide spaces are no printable text
        for char in filter(_unseen, text):
            raise RefusedError(place, "forbidden-character", _naming(char))
    if not event.implicit[0]:  # quoted, or a block
        return text
    kind = _resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]
    if kind in {"str", "timestamp"}:
        return text
    if kind == "bool" and text in {"true", "false"}:
        return text == "true"
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "merge":
        raise RefusedError(
            place, "alias", "merge keys are not read: write the values out, so that a reviewer sees them"
        )
    if kind == "null":
        raise RefusedError(place, "no-value", "there is no value here: give one, or leave the key out")
    raise RefusedError(place, "ambiguous", f"YAML reads {text[:40]} as {_read_as(text, kind)}: quote it")


def _read_as(text: str, kind: str) -> str:
    match kind:
        case "bool":
            return "true or false"
        case "int" if ":" in text:
            return "a number to the base of 60"
        case "int":
            return "a number in another notation"
        case "float":
            return "a fraction"
        case _:
            return f"a {kind}"
