"""Take a beat: the workload is alive and still at its task, so the grant goes on to its end; it gets no later one."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.grants.anew import Anew, DecideAnew
from controlplane.model.errors import LostRaceError
from controlplane.model.grant import Grant, GrantId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.ports import Clock, Store

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeHeartbeat:
    """The next beat is due one interval from now. A beat is no event: what it changes is told when something ends."""

    clock: Clock
    store: Store
    anew: DecideAnew

    def __call__(self, who: VerifiedClaims, id: GrantId, *, address: Address | None = None) -> Grant:
        """The grant, with when its next beat is due; None where its entitlement asks for none.

        A freeze, or a budget that is used up, ends nothing that is in use. Repeating it is what it is made for.

        Raises:
            NotFoundError: no such grant of this workload.
            IllegalTransitionError: it is not in use yet.
            EndedError: it has ended, perhaps because this beat comes too late.
            ContextChangedError: decided anew, it would not be granted: it has just ended.
            LostRaceError: it keeps moving; ask again. StoreUnavailableError: the beat is not on disk.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._beat(who, id, address)
            except LostRaceError:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _beat(self, who: VerifiedClaims, id: GrantId, address: Address | None) -> Grant:
        grant = self.anew.own(who, id)
        known = self.anew.known(grant)
        with self.store.transaction() as tx:
            found = self.anew(tx, known, who, address=address)
            if not found.changed:
                alive = grant.watched(heartbeat_due_at=next_beat(found, self.clock))
                tx.save(alive)
                return alive
        raise self.anew.end(found, grant, who)


def next_beat(found: Anew, clock: Clock) -> datetime | None:
    """When the beat after one of now is due."""
    every = None if found.entitlement is None else found.entitlement.heartbeat
    return None if every is None else clock.now() + every
