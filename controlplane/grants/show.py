"""Look at grants: one's own, never anybody else's."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model.errors import NotFoundError
from controlplane.model.grant import Grant, GrantId
from controlplane.model.identity import VerifiedClaims
from controlplane.model.lease import Lease
from controlplane.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowGrant:
    """What the store knows of the caller's grants."""

    store: Store

    def __call__(self, who: VerifiedClaims, id: GrantId) -> tuple[Grant, Sequence[Lease]]:
        """The grant and its leases. Raises: NotFoundError: no such grant of this workload."""
        grant = self.store.grant(id)
        if grant is None or grant.workload != who.workload:
            raise NotFoundError(f"there is no grant {id} of this workload")
        return grant, self.store.leases(id)

    def page(self, who: VerifiedClaims, *, before: GrantId | None, limit: int) -> Sequence[Grant]:
        """The caller's grants, newest first."""
        return self.store.grants(workload=who.workload, before=before, limit=limit)
