"""Verify a whole audit trail: every record, and that the sealed head is the last of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from controlplane.audit.chain import GENESIS, Broken, Checkpoint, Intact, Unreadable, verify
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import AuditBrokenError
from controlplane.model.event import Head, Link
from controlplane.model.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The chain at one instant: its head, and its links for as long as the snapshot is open."""

    head: Head | None
    links: Iterator[Link | Unreadable]


class Trail(Protocol):
    """A stored chain that is only read."""

    def snapshot(self, *, after: int | None = None) -> AbstractContextManager[Snapshot]:
        """The chain as it is now, after record `after`; None reads everything, whatever number it has."""
        ...


def _nothing(_done: int, _of: int) -> None: ...


def verify_trail(
    trail: Trail, key: Secret, *, start: Checkpoint = GENESIS, progress: Callable[[int, int], None] = _nothing
) -> Intact | Broken:
    """What a trail is worth, from `start` on; `progress` is told how many records of how many are done.

    Raises: StoreUnavailableError: it cannot be read at all.
    """
    with trail.snapshot(after=None if start == GENESIS else start.seq) as snapshot:
        of = 0 if snapshot.head is None else snapshot.head.seq - start.seq
        return verify(_counted(snapshot.links, of, progress), snapshot.head, key, start=start)


def summary(found: Intact | Broken) -> JsonObject:
    """The outcome as data."""
    match found:
        case Intact():
            return {"intact": True, "records": found.records, "seq": found.upto.seq, "mac": found.upto.mac}
        case Broken():
            return {
                "intact": False,
                "seq": found.seq,
                "kind": found.kind,
                "fault": found.fault.value,
                "detail": found.detail,
                "what_to_do": AuditBrokenError.hint,
            }


def _counted(
    links: Iterator[Link | Unreadable], of: int, progress: Callable[[int, int], None]
) -> Iterator[Link | Unreadable]:
    for done, link in enumerate(links, start=1):
        yield link
        if done % 500 == 0:
            progress(done, of)
