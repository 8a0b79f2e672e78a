"""End a grant whose task is over: save that it ends, and let the worker make it so and prove it."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.grants.unsaved import ending_all_the_same
from controlplane.model.errors import LostRaceError, NotFoundError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.ports import Clock, Leases, Recorder, Spool, Store, Wake

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishGrant:
    """From wherever the grant stands towards `REVOKED`; what only waited for approval lapses."""

    clock: Clock
    record: Recorder
    store: Store
    leases: Leases
    spool: Spool
    wake: Wake

    def __call__(self, who: VerifiedClaims, id: GrantId, why: Why) -> Grant:
        """The grant as it stands after the wish to end it is on disk. Repeating it changes nothing.

        Raises:
            NotFoundError: no such grant of this workload.
            LostRaceError: it keeps moving; ask again.
            StoreUnavailableError: it is not in the store; Vault was asked to revoke all the same, and the spool has it.
        """
        for left in reversed(range(_TRIES)):
            grant = self.store.grant(id)
            if grant is None or grant.workload != who.workload:
                raise NotFoundError(f"there is no grant {id} of this workload")
            try:
                return self._end(grant, why)
            except LostRaceError:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _end(self, grant: Grant, why: Why) -> Grant:
        if (step := ending(grant, why, at=self.clock.now())) is None:
            return grant
        ended, kind = step
        event = self.record(kind, grant.id, why=why)
        with ending_all_the_same(self.leases, self.spool, grant, event), self.store.transaction() as tx:
            tx.save(ended, event)
        self.wake()
        return ended


def ending(grant: Grant, why: Why, *, at: datetime) -> tuple[Grant, Kind] | None:
    """The grant on its way to its end and what that is called; None where it is on it, or has ended."""
    match grant.state:
        case State.PENDING | State.APPROVED:
            return grant.after(Step.LAPSE, why=why, due_at=None), Kind.GRANT_LAPSED
        case State.ISSUING | State.ACTIVE:
            return grant.after(Step.END, why=why, revoking_at=at, due_at=at), Kind.GRANT_ENDED
        case State.REVOKING | State.IRREVOCABLE | State.REVOKED | State.DENIED | State.LAPSED:
            return None
