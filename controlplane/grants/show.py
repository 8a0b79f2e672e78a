"""Look at grants: one's own; those of others only with a role."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.model.access import NOBODY, Role, Standing
from controlplane.model.errors import NotFoundError
from controlplane.model.grant import Grant, GrantId, State, TaskId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.lease import Lease
from controlplane.ports import Store

SEE_ALL: Final = frozenset({Role.RESPONDER, Role.AUDITOR, Role.PLATFORM})
"""Who may look at the grants of others. Nobody may end or collect them by that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowGrant:
    """What the store knows of grants."""

    store: Store

    def __call__(self, who: VerifiedClaims, id: GrantId, standing: Standing = NOBODY) -> tuple[Grant, Sequence[Lease]]:
        """The grant and its leases.

        Raises: NotFoundError: no such grant that the caller may see; whether there is one is not told.
        """
        grant = self.store.grant(id)
        if grant is None or (grant.workload != who.workload and standing.roles.isdisjoint(SEE_ALL)):
            raise NotFoundError(f"there is no grant {id} of this workload")
        return grant, self.store.leases(id)

    def page(
        self,
        who: VerifiedClaims,
        standing: Standing = NOBODY,
        *,
        entitlement: str | None = None,
        task: TaskId | None = None,
        states: Iterable[State] = (),
        before: GrantId | None,
        limit: int,
    ) -> Sequence[Grant]:
        """The grants that the caller may see, newest first. Another's `before` is the end of the list."""
        own = who.workload if standing.roles.isdisjoint(SEE_ALL) else None
        if own is not None and before is not None and not self._is_of(who, before):
            return []
        return self.store.grants(
            workload=own, entitlement=entitlement, task=task, states=states, before=before, limit=limit
        )

    def _is_of(self, who: VerifiedClaims, id: GrantId) -> bool:
        # Where somebody else's grant stands among one's own would tell that there is one, and since when.
        grant = self.store.grant(id)
        return grant is not None and grant.workload == who.workload
