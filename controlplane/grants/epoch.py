"""Whether the store is as far as Vault remembers it: one that was restored from a backup grants nothing.

The epoch is the head of the audit chain, noted in Vault every round. A store whose chain does not have that record,
with that MAC, has lost what came after its backup; so has one that is empty beside living tokens of ours.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import StoreBehindError
from controlplane.model.event import Kind
from controlplane.model.lease import Accessor
from controlplane.model.orphan import Epoch
from controlplane.ports import Census, Clock, Recorder, Store

ROUND = "reconcile"
"""The round whose mark is the epoch that was noted last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What Vault remembers beside what the store has. `behind` says why nothing may be granted, None if all is well.

    `vault_lost` is True where it is Vault that forgot: the store has noted more there than it shows.
    """

    noted: Epoch | None
    seq: int
    behind: str | None
    vault_lost: bool


class Epochs:
    """Compares, remembers the outcome for whoever grants, and notes. Safe for threads; one in each process."""

    def __init__(self, *, clock: Clock, record: Recorder, store: Store, census: Census) -> None:
        self._clock, self._record, self._store, self._census = clock, record, store, census
        self._lock = threading.Lock()
        self._known: Compared | None = None

    def gate(self) -> None:
        """Let whoever grants pass, by what was found last; asks by itself when nothing was yet.

        Raises:
            StoreBehindError: the store is older than Vault remembers.
            VaultUnavailableError, VaultRefusedError: Vault could not be asked; nothing is known yet.
        """
        known = self._known
        if known is None:
            with self._lock:
                known = self._known or self.compare()
        if known.behind is not None:
            raise StoreBehindError(known.behind)

    def compare(self) -> Compared:
        """Look at both again. Raises: VaultUnavailableError, VaultRefusedError, StoreUnavailableError."""
        noted = self._census.epoch()  # first: whoever noted it had committed that record before
        mark = self._store.mark(ROUND)
        head = self._store.head()
        seq = 0 if head is None else head.seq
        found = Compared(
            noted=noted, seq=seq, behind=self._behind(noted, seq), vault_lost=mark > (0 if noted is None else noted.seq)
        )
        before = self._known
        if found.behind is not None and (before is None or before.behind is None):
            self._tell("store", found.behind)
        elif found.vault_lost and (before is None or not before.vault_lost):
            self._tell("vault", f"Vault shows {0 if noted is None else noted.seq}, and {mark} was noted there")
        self._known = found
        return found

    def note(self) -> int:
        """Note how far the store is now. Gives the place in the chain; the caller keeps it as the round's mark."""
        head = self._store.head()
        if head is None:
            raise StoreBehindError("the store has no audit head any more: run `shorthold audit verify`")
        known = self._known
        if known is None or known.noted != Epoch(seq=head.seq, mac=head.mac):
            self._census.note(Epoch(seq=head.seq, mac=head.mac))
        return head.seq

    def confirm(self, **told: JsonValue) -> None:
        """Take the store as it is now for the right one: somebody looked at what differs, and decided."""
        with self._store.transaction() as tx:
            tx.append(self._record(Kind.RESTORE_CONFIRMED, **told))
        self._store.begin_round(ROUND, self._clock.now(), hold=_NO_TIME)
        self._store.end_round(ROUND, self._clock.now(), mark=self.note())
        self._known = None
        self.compare()

    def _behind(self, noted: Epoch | None, seq: int) -> str | None:
        if noted is None:
            return self._empty()
        if seq < noted.seq:
            return f"the store ends at audit record {seq}, and Vault remembers record {noted.seq} of it"
        if not noted.seq:
            return None
        found = next(iter(self._store.links(after=noted.seq - 1, limit=1)), None)
        if found is None or found.seq != noted.seq or found.mac != noted.mac:
            return f"audit record {noted.seq} of the store is not the one that Vault remembers: it went another way"
        return None

    def _empty(self) -> str | None:
        """Nothing was ever noted: so it is the first start, unless something of ours lives without any grant."""
        if self._store.grants(limit=1):
            return None
        found = self._census.survey(_nobody).tokens or self._census.places()
        # A grant that came while we looked had passed the gate, and what was found may be its own.
        if found and not self._store.grants(limit=1):
            return "the store knows no grant at all, and there are tokens or leases of ours in Vault"
        return None

    def _tell(self, what: str, detail: str) -> None:
        with self._store.transaction() as tx:
            tx.append(self._record(Kind.RESTORE_FOUND, what=what, detail=detail))


_NO_TIME = timedelta(0)


def _nobody(accessors: Iterable[Accessor]) -> frozenset[Accessor]:
    del accessors
    return frozenset()
