"""A stretch of the chain for whoever has no audit key: what it is about in full, all between by its fingerprint."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from controlplane.audit.chain import Broken, Checkpoint, Intact, verify
from controlplane.audit.export import as_data
from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.event import Head, Link
from controlplane.model.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Every record after `start`, up to the head: `links` as they are, `records` as data with what lies between.

    `found` is what the chain was worth when it was read, by whoever has its key.
    """

    start: Checkpoint
    links: list[Link]
    records: list[JsonValue]
    found: Intact | Broken


def excerpt(
    links: Iterable[Link], head: Head | None, key: Secret, *, start: Checkpoint, wanted: Callable[[Link], bool]
) -> Excerpt:
    """The records after `start`, checked with the key: those that are `wanted`, and gaps. Reads once."""
    kept = _Kept(wanted)
    reading = kept.of(links)
    found = verify(reading, head, key, start=start)
    for _ in reading:
        pass  # what comes after a broken record is told all the same
    kept.close()
    return Excerpt(start=start, links=kept.links, records=kept.records, found=found)


def unaccounted(records: Iterable[Any], first: int, last: int) -> Iterator[str]:
    """A sentence for each record from `first` to `last` that is neither there nor in a gap, or is there twice."""
    due = first
    for record in records:
        match record:
            case {"seq": int(seq), "mac": str()}:
                begin, end = seq, seq
            case {"from": int(begin), "to": int(end), "fingerprint": str()} if begin <= end:
                pass
            case _:
                yield f"what stands where record {due} of the audit log belongs is no record"
                continue
        if begin > due:
            yield f"{_records(due, begin - 1)} of the audit log is missing"
        if begin < due:
            yield f"{_records(begin, end)} of the audit log stands where record {due} belongs: repeated or moved"
        due = max(due, end + 1)
    if due <= last:
        yield f"{_records(due, last)} of the audit log is missing at the end"
    if due > last + 1:
        yield f"{_records(last + 1, due - 1)} stands after the end of the audit log"


@dataclass(slots=True)
class _Kept:
    wanted: Callable[[Link], bool]
    links: list[Link] = field(default_factory=list[Link])
    records: list[JsonValue] = field(default_factory=list[JsonValue])
    _first: int = 0
    _last: int = 0
    _between: Any = None

    def of(self, links: Iterable[Link]) -> Iterator[Link]:
        for link in links:
            if self.wanted(link):
                self.close()
                self.links.append(link)
                self.records.append(dict(as_data(link)))
            else:
                self._pass(link)
            yield link

    def _pass(self, link: Link) -> None:
        if self._between is None:
            self._first, self._between = link.seq, hashlib.sha256()
        self._between.update(f"{link.mac}\n".encode())
        self._last = link.seq

    def close(self) -> None:
        if self._between is not None:
            gap: JsonObject = {"from": self._first, "to": self._last, "fingerprint": self._between.hexdigest()}
            self.records.append(dict(gap))
            self._between = None


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"each of the records {first} to {last}"
