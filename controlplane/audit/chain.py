"""The hash chain: every audit event is bound to the one before it, by a key that the database does not have."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controlplane.model.canonical import JsonValue, canonical, instant
from controlplane.model.event import Event, Head, Link
from controlplane.model.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A place in the chain that somebody wrote down elsewhere: everything up to `seq` ends in `mac`."""

    seq: int
    mac: str


GENESIS: Final = Checkpoint(seq=0, mac="0" * 64)
"""Where every chain begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A stored record that does not read back as it was written; `what` says which part, never its value."""

    seq: int
    what: str


class Fault(StrEnum):
    """What is wrong with a chain, at its first bad record."""

    CHANGED = "changed"
    MISSING = "missing"
    REPEATED = "repeated"
    UNREADABLE = "unreadable"
    CUT_OFF = "cut-off"
    UNSEALED = "unsealed"  # records after the sealed head
    HEAD_MISSING = "head-missing"
    HEAD_FORGED = "head-forged"
    FOREIGN = "foreign"  # nothing verifies, not even the head


@dataclass(frozen=True, slots=True, kw_only=True)
class Intact:
    """Every record is as it was written; `upto` is worth writing down elsewhere."""

    upto: Checkpoint
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The first bad record: its `seq`, the kind it claims (None where there is no record), and what is wrong."""

    seq: int
    kind: str | None
    fault: Fault
    detail: str


def seal_link(key: Secret, before: str, seq: int, event: Event) -> str:
    """The MAC of one link: HMAC-SHA256 (RFC 2104) over the event, its place and the MAC before it, in hex.

    The bytes are a canonical JSON list whose first entry names its use, so no link can pass for a seal.
    """
    body: dict[str, JsonValue] = dict(event.body)
    return _mac(key, ["link", before, seq, event.id, instant(event.at), event.kind.value, event.grant, body])


def seal_head(key: Secret, seq: int, mac: str) -> Head:
    """The head of a chain whose last link is `seq` with `mac`; without the key nobody can shorten the chain."""
    return Head(seq=seq, mac=mac, seal=_mac(key, ["head", seq, mac]))


def is_sealed(key: Secret, head: Head) -> bool:
    """Whether the head was sealed with this key."""
    try:
        seal = seal_head(key, head.seq, head.mac).seal
    except ValueError:  # text that is no Unicode was never written by us
        return False
    return hmac.compare_digest(seal.encode(), head.seal.encode(errors="replace"))


def extend(key: Secret, head: Head, events: Iterable[Event]) -> tuple[list[Link], Head]:
    """The links of `events` after `head`, and the head after them."""
    links: list[Link] = []
    seq, mac = head.seq, head.mac
    for event in events:
        seq += 1
        mac = seal_link(key, mac, seq, event)
        links.append(Link(seq=seq, event=event, mac=mac))
    return links, seal_head(key, seq, mac)


def verify(
    links: Iterable[Link | Unreadable], head: Head | None, key: Secret, *, start: Checkpoint = GENESIS
) -> Intact | Broken:
    """Check every link after `start`, and that the sealed head is the last of them. Reads once, keeps one link.

    A chain cut back to an older head that somebody kept is intact in itself: only a `start` written down
    elsewhere shows it.
    """
    sealed = head is not None and is_sealed(key, head)
    last = start
    for link in links:
        broken = _misplaced(link.seq, last.seq + 1)
        if broken is not None:
            return broken
        if isinstance(link, Unreadable):
            return Broken(seq=link.seq, kind=None, fault=Fault.UNREADABLE, detail=f"record {link.seq}: {link.what}")
        if not _holds(key, last.mac, link):
            return _changed(link, alone=last != start or sealed)
        last = Checkpoint(seq=link.seq, mac=link.mac)
    return _ends(last, head, start, sealed=sealed)


def _holds(key: Secret, before: str, link: Link) -> bool:
    try:
        mac = seal_link(key, before, link.seq, link.event)
    except ValueError:  # what JSON or UTF-8 cannot say was never written by us
        return False
    return hmac.compare_digest(mac.encode(), link.mac.encode(errors="replace"))


def _misplaced(seq: int, due: int) -> Broken | None:
    if seq == due:
        return None
    if seq > due:
        what = f"record {due} is not in its place: it was removed or moved"
        return Broken(seq=due, kind=None, fault=Fault.MISSING, detail=what)
    what = f"record {seq} stands where record {due} belongs: it was repeated or moved"
    return Broken(seq=seq, kind=None, fault=Fault.REPEATED, detail=what)


def _changed(link: Link, *, alone: bool) -> Broken:
    if alone:
        fault, what = Fault.CHANGED, "was changed, moved or put in by somebody without the audit key"
    else:
        fault, what = Fault.FOREIGN, "and the head were not made with this audit key"
    return Broken(seq=link.seq, kind=link.event.kind.value, fault=fault, detail=f"record {link.seq} {what}")


def _ends(last: Checkpoint, head: Head | None, start: Checkpoint, *, sealed: bool) -> Intact | Broken:
    if head is None:
        what = f"the sealed head of the chain is gone; {last.seq} records stand before it"
        return Broken(seq=last.seq + 1, kind=None, fault=Fault.HEAD_MISSING, detail=what)
    if not sealed:
        what = "the head of the chain was not sealed with this audit key"
        return Broken(seq=head.seq, kind=None, fault=Fault.HEAD_FORGED, detail=what)
    if head.seq != last.seq:
        return _uneven(last, head, start)
    if not hmac.compare_digest(head.mac.encode(errors="replace"), last.mac.encode()):
        what = f"the head is of another chain: record {last.seq} does not end as it says"
        return Broken(seq=head.seq, kind=None, fault=Fault.HEAD_FORGED, detail=what)
    return Intact(upto=last, records=last.seq - start.seq)


def _uneven(last: Checkpoint, head: Head, start: Checkpoint) -> Broken:
    if head.seq > last.seq:
        fault, what = Fault.CUT_OFF, f"records {last.seq + 1} to {head.seq} were cut off the end"
        return Broken(seq=last.seq + 1, kind=None, fault=fault, detail=what)
    if head.seq < start.seq:
        fault = Fault.CUT_OFF
        what = f"the chain ends at {head.seq}, before the checkpoint {start.seq}: it was cut off or replaced"
    else:
        fault, what = Fault.UNSEALED, f"records {head.seq + 1} to {last.seq} stand after the sealed head"
    return Broken(seq=head.seq + 1, kind=None, fault=fault, detail=what)


def _mac(key: Secret, parts: list[JsonValue]) -> str:
    return hmac.digest(bytes.fromhex(key.reveal()), canonical(parts), "sha256").hex()
