"""End what nobody vouches for any more: grants of workloads whose issuer was taken out of the settings."""

from dataclasses import dataclass

from controlplane.grants.unsaved import ending_all_the_same
from controlplane.model.errors import LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, Why
from controlplane.model.identity import IssuerName
from controlplane.ports import Clock, Leases, Recorder, Spool, Store, Wake

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EndUnvouched:
    """Such a workload can neither renew nor beat, so nobody would decide anew on what it holds."""

    clock: Clock
    record: Recorder
    store: Store
    leases: Leases
    spool: Spool
    wake: Wake
    issuers: frozenset[IssuerName]

    def __call__(self) -> int:
        """End every active grant of an issuer that is none of `issuers`; how many. Repeating it is fine.

        Settings are read at the start of a process, so it is called once then.
        Raises: StoreUnavailableError: call it again; Vault was asked to revoke what was met so far.
        """
        ended, last = 0, None
        while page := self.store.grants(states=[State.ACTIVE], before=last, limit=_PAGE):
            ended += sum(self._end(grant) for grant in page if grant.issuer not in self.issuers)
            last = GrantId(page[-1].id)
        if ended:
            self.wake()
        return ended

    def _end(self, grant: Grant) -> bool:
        now, detail = self.clock.now(), f"the settings do not name the issuer {grant.issuer} any more"
        ending = grant.after(Step.END, why=Why.CONTEXT_CHANGED, revoking_at=now, due_at=now)
        event = self.record(Kind.GRANT_ENDED, grant.id, why=Why.CONTEXT_CHANGED, detail=detail)
        try:
            with ending_all_the_same(self.leases, self.spool, grant, event), self.store.transaction() as tx:
                tx.save(ending, event)
        except LostRaceError:
            return False  # somebody else has just moved it; a beat cannot have: its issuer proves nobody
        return True
