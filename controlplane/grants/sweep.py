"""Remove roles of single grants that nobody needs any more: their grant ended, or the store does not know it."""

from dataclasses import dataclass

import structlog

from controlplane.model.event import Kind
from controlplane.ports import GrantRoles, Leases, Recorder, Store

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRoles:
    """One sweep. Whoever ends a grant removes its roles; this finds what is left where that did not come about."""

    record: Recorder
    store: Store
    leases: Leases
    roles: GrantRoles

    def __call__(self) -> int:
        """How many grants' roles were removed. A role stays as long as a lease hangs from it.

        Raises: StoreUnavailableError, VaultUnavailableError, VaultRefusedError: the rest waits for the next sweep.
        """
        # In this order: a grant is saved before its role is made, so the store knows every one that was found.
        present = self.roles.present()
        swept = 0
        for id, paths in sorted(present.items()):
            grant = self.store.grant(id)
            if (grant is not None and grant.open) or any(self.leases.under(path) for path in paths):
                continue
            self.roles.remove(id)
            why = "no grant knows it" if grant is None else f"its grant is {grant.state}"
            with self.store.transaction() as tx:
                tx.append(self.record(Kind.ROLE_REMOVED, id, detail=why))
            log.warning("role_removed", grant=id, detail=why)
            swept += 1
        return swept
