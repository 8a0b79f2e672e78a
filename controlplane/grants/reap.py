"""Finish what nobody finished: look at one due grant and move it on."""

from dataclasses import dataclass

from controlplane.grants.revoke import RevokeGrant
from controlplane.grants.unsaved import ending_all_the_same
from controlplane.model.errors import LostRaceError, VaultRefusedError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State, Step, Why
from controlplane.ports import Clock, Logins, Recorder, Spool, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapGrant:
    """What is due decides what happens: a deadline is a row in the store, never a job in a scheduler."""

    clock: Clock
    record: Recorder
    store: Store
    logins: Logins
    spool: Spool
    revoke: RevokeGrant

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
                return self.revoke(self._end(grant, Why.INTERRUPTED))
            case State.ACTIVE:
                return self._active(grant)
            case State.REVOKING | State.IRREVOCABLE:
                return self.revoke(grant)
            case State.DENIED | State.LAPSED | State.REVOKED:
                return grant

    def _active(self, grant: Grant) -> Grant:
        now = self.clock.now()
        if now >= grant.expires_at:
            return self.revoke(self._end(grant, Why.EXPIRED))
        if self._unopened(grant):
            return self.revoke(self._end(grant, Why.UNCLAIMED))
        watched = grant.but(due_at=grant.expires_at, wrap_accessor=None)
        with self.store.transaction() as tx:
            tx.save(watched)
        return watched

    def _unopened(self, grant: Grant) -> bool:
        # A wrapping token that can still be used shortly before its end was opened by nobody; one that is being
        # opened right now has no use left. One that we look at too late, or cannot look at now, is soon gone either
        # way: then the grant runs to its own end.
        if grant.wrap_accessor is None:
            return False
        try:
            facts = self.logins.facts(grant.wrap_accessor)
        except (VaultUnavailableError, VaultRefusedError):
            return False
        return facts is not None and facts.num_uses > 0

    def _end(self, grant: Grant, why: Why) -> Grant:
        now = self.clock.now()
        ending = grant.after(Step.END, why=why, revoking_at=now, due_at=now)
        event = self.record(Kind.GRANT_ENDED, grant.id, why=why)
        with ending_all_the_same(self.revoke.leases, self.spool, grant, event), self.store.transaction() as tx:
            tx.save(ending, event)
        return ending
