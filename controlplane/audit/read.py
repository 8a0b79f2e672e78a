"""Read the audit log over a door: whoever reads is read of (attack L16)."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model.access import Role, Standing
from controlplane.model.event import Kind, Link
from controlplane.model.identity import VerifiedClaims
from controlplane.ports import Recorder, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAudit:
    """A page of the chain for an auditor, and one event for each page."""

    record: Recorder
    store: Store

    def __call__(self, who: VerifiedClaims, standing: Standing, *, after: int, limit: int) -> Sequence[Link]:
        """Links with a number greater than `after`, in order; that they are read is on disk before they are.

        Raises: NotAllowedError: the caller is no auditor. StoreUnavailableError: what stands there cannot be read.
        """
        standing.must_be(Role.AUDITOR)
        with self.store.transaction() as tx:
            told = {"issuer": who.issuer, "subject": who.subject, "after": after, "limit": limit}
            tx.append(self.record(Kind.AUDIT_READ, **told))
        return self.store.links(after=after, limit=limit)
