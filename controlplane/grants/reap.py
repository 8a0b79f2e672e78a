"""Finish what nobody finished: look at one due grant and move it on."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.grants.finish import ending
from controlplane.grants.issue import CLAIM_CHECK
from controlplane.grants.revoke import RevokeGrant
from controlplane.grants.undo import UndoRenewal
from controlplane.grants.unsaved import ending_all_the_same
from controlplane.model.errors import LostRaceError, VaultRefusedError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State, Step, Why
from controlplane.ports import Clock, Logins, Recorder, Spool, Store

_TRIES = 5
_ROUNDING = timedelta(seconds=1)
"""Vault tells what is left of a wrapping token in whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapGrant:
    """What is due decides what happens: a deadline is a row in the store, never a job in a scheduler."""

    clock: Clock
    record: Recorder
    store: Store
    logins: Logins
    spool: Spool
    revoke: RevokeGrant
    undo: UndoRenewal

    def __call__(self, grant: Grant) -> Grant:
        """The grant after whatever was due. Losing a race to somebody else's move is fine: that move stands.

        Raises: StoreUnavailableError: nothing was saved, and it stays due; what had to end, Vault was asked to revoke.
        """
        try:
            return self._reap(grant)
        except LostRaceError:
            return self.store.grant(grant.id) or grant

    def _reap(self, grant: Grant) -> Grant:
        match grant.state:
            case State.PENDING | State.APPROVED:
                lapsed = grant.after(Step.LAPSE, why=Why.EXPIRED, due_at=None)
                with self.store.transaction() as tx:
                    tx.save(lapsed, self.record(Kind.GRANT_LAPSED, grant.id, why=Why.EXPIRED))
                return lapsed
            case State.ISSUING:
                return self._revoke(self._end(grant, Why.INTERRUPTED))
            case State.ACTIVE:
                return self._active(grant)
            case State.REVOKING | State.IRREVOCABLE:
                return self._revoke(grant)
            case State.DENIED | State.LAPSED | State.REVOKED:
                return grant

    def _active(self, grant: Grant) -> Grant:
        now = self.clock.now()
        if (why := grant.over(now)) is not None:
            return self._revoke(self._end(grant, why))
        if grant.renewing_by is not None and now >= grant.renewing_by:
            return self.undo(grant)
        claim_by = self._claim_by(grant)
        if claim_by is not None and now >= claim_by:
            return self._revoke(self._end(grant, Why.UNCLAIMED))
        opened = {"wrap_accessor": None} if claim_by is None else {"due_at": claim_by}
        watched = grant.watched(**opened)
        with self.store.transaction() as tx:
            tx.save(watched)
        return watched

    def _claim_by(self, grant: Grant) -> datetime | None:
        """When its wrapping token counts as opened by nobody; None where it was opened, or nobody can tell."""
        # A wrapping token that can still be used shortly before its end was opened by nobody; one that is being
        # opened right now has no use left. One that we look at too late, or cannot look at now, is soon gone either
        # way: then the grant runs to its own end.
        if grant.wrap_accessor is None:
            return None
        try:
            facts = self.logins.facts(grant.wrap_accessor)
        except (VaultUnavailableError, VaultRefusedError):
            return None
        if facts is None or facts.num_uses <= 0:
            return None
        early = facts.ttl - CLAIM_CHECK
        return self.clock.now() + (early if early > _ROUNDING else timedelta(0))

    def _revoke(self, grant: Grant) -> Grant:
        with ending_all_the_same(self.revoke.leases, self.spool, grant):
            self._end_below(grant)
        return self.revoke(grant)

    def _end_below(self, grant: Grant) -> None:
        """End what hangs from it, however it ends itself: none can be added any more, and until then it is due."""
        for _ in range(_TRIES):
            below = self.store.under(grant.id)
            if not below:
                return
            for part in below:
                with suppress(LostRaceError):  # it moved: the next look sees whereto
                    self._end(part, Why.PARENT_ENDED)
        raise LostRaceError(f"what hangs from grant {grant.id} keeps moving")

    def _end(self, grant: Grant, why: Why) -> Grant:
        if (step := ending(grant, why, at=self.clock.now())) is None:
            return grant
        ended, kind = step
        event = self.record(kind, grant.id, why=why)
        with ending_all_the_same(self.revoke.leases, self.spool, grant, event), self.store.transaction() as tx:
            tx.save(ended, event)
        return ended
